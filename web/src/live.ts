/** Subscriptions, as event streams: what a subscription gives, one result after the other. */

import { createClient } from 'graphql-sse';
import type { Operation, Result } from './graphql';

/** Ends when the server ends it, or when nobody iterates any more. */
export async function* listen({ query, operationName, variables }: Operation, headers: Headers): AsyncGenerator<Result> {
  const client = createClient({ url: '/graphql', headers: Object.fromEntries(headers), retryAttempts: 0 });
  try {
    const request = { query, ...(operationName && { operationName }), variables: (variables ?? {}) as Record<string, unknown> };
    for await (const result of client.iterate<Result['data']>(request)) yield result as unknown as Result;
  } catch (error) {
    yield { errors: [{ message: error instanceof Error ? error.message : 'The connection was lost. Run it again.' }] };
  } finally {
    client.dispose();
  }
}
