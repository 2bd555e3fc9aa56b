import { signOut, type Session } from './session';

export function SignedInBar({ session: { user, tenant } }: { session: Session }) {
  return (
    <header className="bar">
      <strong>MDL</strong>
      <span className="who">
        {user.name || user.email} <span className="tenant">at {tenant ?? 'the default tenant'}</span>
      </span>
      <button type="button" id="sign-out" onClick={() => void signOut()}>
        Sign out
      </button>
    </header>
  );
}
