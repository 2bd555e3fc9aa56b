/** One GraphQL operation over HTTP. This file knows the protocol, and not who is signed in. */

export interface Operation {
  query: string;
  operationName?: string | null;
  variables?: unknown;
}

export interface Result {
  data?: Record<string, unknown> | null;
  errors?: { message: string; extensions?: { code?: string } }[];
}

export interface Answer {
  result: Result;
  /** The credential was refused and nothing was executed, so the operation may be sent again with another one. */
  unauthenticated: boolean;
}

/** Throws an Error, in words for the person at the screen, when there is no GraphQL answer at all. */
export async function post(operation: Operation, headers?: Headers): Promise<Answer> {
  const sent = new Headers(headers);
  sent.set('Content-Type', 'application/json');
  sent.set('Accept', 'application/graphql-response+json, application/json;q=0.9');

  const response = await fetch('/graphql', { method: 'POST', headers: sent, body: JSON.stringify(operation) }).catch(
    (cause: unknown) => {
      throw new Error('The server cannot be reached. Check the connection and try again.', { cause });
    },
  );
  if (!isJson(response)) {
    throw new Error(`The server answered ${response.status} without a GraphQL response. Try again in a moment.`);
  }

  const result = (await response.json()) as Result;
  const refused = !result.data && result.errors?.some((error) => error.extensions?.code === 'UNAUTHENTICATED');
  return { result, unauthenticated: response.status === 401 || refused === true };
}

function isJson(response: Response): boolean {
  return /^application\/([\w.-]+\+)?json\b/i.test(response.headers.get('Content-Type') ?? '');
}
