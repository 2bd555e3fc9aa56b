/** GraphiQL itself. Imported dynamically, so that all of it stays out of the first load. */

import { GraphiQL } from 'graphiql';
import 'graphiql/style.css';
import './explorer.css';
import { fetcher } from './fetcher';
import { starters } from './starters';

const tabs = starters.map(({ query, variables }) => ({ query, variables: variables ?? null }));

openFirstTabOnFirstVisit();

export default function Explorer() {
  return (
    <main className="explorer">
      {/* Headers may hold API keys, so the setting that keeps them in localStorage is not offered. */}
      <GraphiQL
        fetcher={fetcher}
        defaultTabs={tabs}
        defaultEditorToolsVisibility="variables"
        showPersistHeadersSettings={false}
      />
    </main>
  );
}

/**
 * GraphiQL 4 finds the active tab by what its editors held last, and ignores the variables of a default tab. Told nothing, it shows
 * the first starter without its variables, and adds an empty tab on the next visit.
 */
function openFirstTabOnFirstVisit(): void {
  const [first] = tabs;
  if (!first || localStorage.getItem('graphiql:tabState')) return;
  localStorage.setItem('graphiql:query', first.query);
  localStorage.setItem('graphiql:variables', first.variables ?? '');
}
