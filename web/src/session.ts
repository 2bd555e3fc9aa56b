/**
 * Who is signed in to this tab.
 *
 * The session lives in sessionStorage: a reload keeps it, closing the tab forgets it, and other tabs cannot see it. Memory alone
 * would ask for the password on every reload; localStorage would leave a refresh token on disk for weeks. A script injected into
 * the page could read any of the three, which is what the Content-Security-Policy is there to prevent.
 *
 * A refresh token works once, and using it twice revokes every token that descends from the same sign-in. So only one place
 * (`refresh`) uses it, one call at a time, and only one tab owns it (`claim`): a duplicated tab starts with a copy of
 * sessionStorage, and must not spend the token of the original.
 */

import { post, type Answer } from './graphql';

export interface Session {
  /** Names the lock by which a tab owns the session. Means nothing to the server. */
  id: string;
  user: User;
  /** The slug typed at sign-in; null is the server's default tenant. */
  tenant: string | null;
  tokens: Tokens;
}

export interface User {
  id: string;
  email: string;
  name: string | null;
}

interface Tokens {
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string;
}

interface RefreshPayload {
  session: Tokens | null;
}

interface SignInPayload extends RefreshPayload {
  user: User | null;
  userErrors: { message: string }[];
}

export type State = { session: Session } | { session: null; notice: string | null };

const STORAGE_KEY = 'mdl-session';
const REFRESH_AHEAD_MS = 60_000;
const CLAIM_TIMEOUT_MS = 1_000;
const ENDED = 'Your session has ended. Sign in again.';
const DUPLICATED = 'This tab is a copy of another one, which keeps the session. Sign in to use both.';

const TOKENS = 'session { accessToken accessTokenExpiresAt refreshToken }';
const SIGN_IN = `mutation SignIn($input: SignInInput!) {
  signIn(input: $input) { ${TOKENS} user { id email name } userErrors { message } }
}`;
const REFRESH = `mutation Refresh($input: RefreshSessionInput!) {
  refreshSession(input: $input) { ${TOKENS} }
}`;
const SIGN_OUT = `mutation SignOut($input: SignOutInput!) {
  signOut(input: $input) { userErrors { message } }
}`;

let state: State = { session: null, notice: null };
let refreshing: Promise<Session> | null = null;
const listeners = new Set<() => void>();

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function currentState(): State {
  return state;
}

/** Takes up the session that a reload left behind. To be awaited before the first render. */
export async function restore(): Promise<void> {
  const stored = sessionStorage.getItem(STORAGE_KEY);
  if (!stored) return;
  const session = JSON.parse(stored) as Session;
  if (await claim(session.id)) set({ session });
  else set({ session: null, notice: DUPLICATED });
}

/** Signs in, or throws an Error whose message is for the person at the form. */
export async function signIn(input: { tenant: string | null; email: string; password: string }): Promise<void> {
  const answer = await post({ query: SIGN_IN, variables: { input } });
  const { session: tokens, user, userErrors } = payloadOf<SignInPayload>(answer, 'signIn');
  if (!tokens || !user) {
    throw new Error(userErrors.map(({ message }) => message).join(' ') || 'The server did not start a session.');
  }

  const id = crypto.getRandomValues(new Uint32Array(4)).join('-');
  await claim(id);
  set({ session: { id, user, tenant: input.tenant, tokens } });
}

/** Forgets the session, and tells the server to. */
export async function signOut(): Promise<void> {
  // A refresh under way would bring a new token after this one was revoked.
  await refreshing?.catch(() => undefined);
  const { session } = state;
  if (!session) return;

  set({ session: null, notice: null });
  const variables = { input: { refreshToken: session.tokens.refreshToken } };
  // This tab is signed out even when the server could not be told; the tokens then live until they expire.
  await post({ query: SIGN_OUT, variables }).catch(() => undefined);
}

/** An access token with some life left in it. */
export async function accessToken(): Promise<string> {
  const { tokens } = signedIn();
  const remaining = Date.parse(tokens.accessTokenExpiresAt) - Date.now();
  return remaining > REFRESH_AHEAD_MS ? tokens.accessToken : (await refresh()).tokens.accessToken;
}

/** An access token other than `refused`, which the server did not accept. */
export async function replacementFor(refused: string): Promise<string> {
  const { tokens } = signedIn();
  return tokens.accessToken !== refused ? tokens.accessToken : (await refresh()).tokens.accessToken;
}

function refresh(): Promise<Session> {
  refreshing ??= exchangeTokens(signedIn()).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

/** A failure of the network is thrown and leaves the session alone; a refusal by the server ends it. */
async function exchangeTokens(before: Session): Promise<Session> {
  const variables = { input: { refreshToken: before.tokens.refreshToken } };
  const answer = await post({ query: REFRESH, variables });
  const tokens = answer.unauthenticated ? null : payloadOf<RefreshPayload>(answer, 'refreshSession').session;
  if (!tokens) {
    set({ session: null, notice: ENDED });
    throw new Error(ENDED);
  }

  const session = { ...before, tokens };
  set({ session });
  return session;
}

function payloadOf<Payload>({ result }: Answer, field: string): Payload {
  const payload = result.data?.[field];
  if (payload) return payload as Payload;
  throw new Error(result.errors?.[0]?.message ?? 'The server sent an empty answer.');
}

function signedIn(): Session {
  if (!state.session) throw new Error(ENDED);
  return state.session;
}

function set(next: State): void {
  state = next;
  if (next.session) sessionStorage.setItem(STORAGE_KEY, JSON.stringify(next.session));
  else sessionStorage.removeItem(STORAGE_KEY);
  for (const listener of listeners) listener();
}

/**
 * Makes this tab the owner of a session for as long as it lives; false when another tab is. The wait is for a reload, where the
 * old page may still be giving the lock up. Without a secure context (plain HTTP to another machine) there are no locks, and a
 * duplicated tab ends the session of both.
 */
function claim(id: string): Promise<boolean> {
  if (!('locks' in navigator)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const held = () => {
      resolve(true);
      return new Promise<never>(() => undefined);
    };
    navigator.locks
      .request(`${STORAGE_KEY}-${id}`, { signal: AbortSignal.timeout(CLAIM_TIMEOUT_MS) }, held)
      .catch(() => resolve(false));
  });
}
