import { lazy, Suspense, useEffect, useSyncExternalStore } from 'react';
import { LoadBoundary } from './LoadBoundary';
import { SignIn } from './SignIn';
import { SignedInBar } from './SignedInBar';
import { currentState, subscribe } from './session';

// The editor is most of the page's weight, and the sign-in form does not wait for it.
const loadExplorer = () => import('./Explorer');
const Explorer = lazy(loadExplorer);

export function App() {
  const state = useSyncExternalStore(subscribe, currentState);

  useEffect(() => {
    // Fetched while the form is being filled in. If this fails, rendering <Explorer> tries again and reports.
    loadExplorer().catch(() => undefined);
  }, []);

  if (!state.session) return <SignIn notice={state.notice} />;

  return (
    <div className="workspace">
      <SignedInBar session={state.session} />
      <LoadBoundary>
        <Suspense fallback={<p className="loading" role="status">Loading the editor…</p>}>
          {/* The key: a change of user is a new editor, which fetches the schema anew. */}
          <Explorer key={state.session.user.id} />
        </Suspense>
      </LoadBoundary>
    </div>
  );
}
