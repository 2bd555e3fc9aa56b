import { useRef, useState, type SubmitEvent } from 'react';
import { signIn } from './session';

const ERROR_ID = 'sign-in-error';

export function SignIn({ notice }: { notice: string | null }) {
  const [error, setError] = useState<string | null>(null);
  const [pending, setPending] = useState(false);
  const password = useRef<HTMLInputElement>(null);

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    if (pending) return;
    const form = new FormData(event.currentTarget);

    setPending(true);
    setError(null);
    const problem = await attempt(form);
    setPending(false);
    if (problem) {
      setError(problem);
      password.current?.select();
    }
  }

  const describedBy = error ? { 'aria-describedby': ERROR_ID, 'aria-invalid': true } : {};

  return (
    <main className="sign-in">
      {/* The method matters only if scripts fail: a GET would put the password into the URL. */}
      <form method="post" onSubmit={(event) => void submit(event)}>
        <h1>Sign in to MDL</h1>
        {notice && <p role="status">{notice}</p>}

        <label htmlFor="tenant">
          Tenant <span className="hint">(optional)</span>
        </label>
        <input id="tenant" name="tenant" autoComplete="organization" autoCapitalize="none" spellCheck={false} {...describedBy} />

        <label htmlFor="email">Email</label>
        <input id="email" name="email" type="email" autoComplete="username" required {...describedBy} />

        <label htmlFor="password">Password</label>
        <input
          id="password"
          name="password"
          type="password"
          autoComplete="current-password"
          required
          ref={password}
          {...describedBy}
        />

        {error && (
          <p id={ERROR_ID} role="alert">
            {error}
          </p>
        )}

        {/* Not `disabled`, which would take the keyboard focus away. */}
        <button type="submit" id="sign-in" aria-disabled={pending}>
          {pending ? 'Signing in…' : 'Sign in'}
        </button>
      </form>
    </main>
  );
}

/** Returns what went wrong, in words for the person at the form. */
async function attempt(form: FormData): Promise<string | null> {
  const text = (name: string) => String(form.get(name) ?? '');
  const input = { tenant: text('tenant').trim() || null, email: text('email').trim(), password: text('password') };
  try {
    await signIn(input);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
