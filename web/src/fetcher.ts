/** How GraphiQL reaches the API: its operations and its introspection query carry the access token of this tab. */

import type { GraphiQLProps } from 'graphiql';
import { getOperationAST, parse } from 'graphql';
import { post, type Operation, type Result } from './graphql';
import { listen } from './live';
import { accessToken, replacementFor } from './session';

type Fetcher = GraphiQLProps['fetcher'];

export const fetcher: Fetcher = async (operation, options) => {
  try {
    const headers = new Headers(options?.headers);
    return isSubscription(operation) ? await subscribe(operation, headers) : await send(operation, headers);
  } catch (error) {
    // Thrown, GraphiQL would show it with its stack trace.
    return { errors: [{ message: error instanceof Error ? error.message : String(error) }] };
  }
};

async function send(operation: Operation, headers: Headers): Promise<Result> {
  // Somebody trying an API key in the headers editor means that key, and not their own session.
  if (headers.has('Authorization')) return (await post(operation, headers)).result;

  const token = await accessToken();
  headers.set('Authorization', `Bearer ${token}`);
  const answer = await post(operation, headers);
  if (!answer.unauthenticated) return answer.result;

  headers.set('Authorization', `Bearer ${await replacementFor(token)}`);
  return (await post(operation, headers)).result;
}

async function subscribe(operation: Operation, headers: Headers): Promise<AsyncIterable<Result>> {
  if (!headers.has('Authorization')) headers.set('Authorization', `Bearer ${await accessToken()}`);
  return listen(operation, headers);
}

function isSubscription({ query, operationName }: Operation): boolean {
  try {
    return getOperationAST(parse(query), operationName)?.operation === 'subscription';
  } catch {
    // The server says what is wrong with it.
    return false;
  }
}
