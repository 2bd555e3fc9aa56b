// Follows the metrics of a catalog: all that there are, and then each change once and in order, whatever breaks meanwhile.

const METRICS = `query($after: String) {
  eventCursor
  metrics(first: 100, after: $after) { nodes { key name } pageInfo { endCursor hasNextPage } }
}`;
const CHANGES = `subscription($after: String!) {
  catalogChanged(filter: { kinds: ["metric"] }, after: $after) { cursor kind key name }
}`;

// What may be over the next time: `extensions.code`, the code that a websocket was closed with, or the status of an answer.
// An error of the network has none of them.
const PASSING = [
  undefined,
  ...['INTERNAL', 'RATE_LIMITED', 'SLOW_CONSUMER', 'TIMEOUT', 'TOO_MANY', 'UNAVAILABLE'],
  ...[1001, 1005, 1006, 1011, 1012, 1013, 4408, 4499],
  ...[408, 429, 500, 502, 503, 504],
];
// Who was let in and hears this comes back once: with another access token, or with other permissions.
const ENDED = ['UNAUTHENTICATED', 4403];

/**
 * Gives `{ metrics }` at the beginning and whenever they had to be read anew, and `{ change }` for each change.
 * `connect` makes a client that does not come back by itself, and that calls what it is given when it is connected.
 */
export async function* follow(connect) {
  let cursor = null; // Of the last change that was dealt with.
  let failures = 0; // Since the last change.
  for (;;) {
    let connected = false;
    const client = connect(() => {
      connected = true;
    });
    try {
      if (cursor === null) {
        const read = await readAll(client);
        yield { metrics: read.metrics };
        cursor = read.cursor;
      }
      for await (const { data, errors } of client.iterate({ query: CHANGES, variables: { after: cursor } })) {
        if (errors) throw errors;
        yield { change: data.catalogChanged };
        cursor = data.catalogChanged.cursor;
        failures = 0;
      }
    } catch (error) {
      const code = error[0]?.extensions?.code ?? error.response?.status ?? error.code;
      if (code === 'CURSOR_TOO_OLD') cursor = null;
      else if (!PASSING.includes(code) && !(connected && ENDED.includes(code))) {
        throw new Error(`Cannot follow the catalog: ${code}`, { cause: error });
      }
    } finally {
      await client.dispose();
    }
    // Twice as long each time, up to half a minute, and not the same for all who were cut off.
    const pause = Math.min(500 * 2 ** failures, 30_000) * (0.5 + Math.random() / 2);
    failures += 1;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** All metrics, and the cursor to begin after: that of the first page, since the others are read later. */
async function readAll(client) {
  const first = await ask(client, METRICS, { after: null });
  const metrics = [...first.metrics.nodes];
  for (let page = first.metrics.pageInfo; page.hasNextPage; ) {
    const next = await ask(client, METRICS, { after: page.endCursor });
    metrics.push(...next.metrics.nodes);
    page = next.metrics.pageInfo;
  }
  return { metrics, cursor: first.eventCursor };
}

/** The answer of a query. */
async function ask(client, query, variables) {
  for await (const { data, errors } of client.iterate({ query, variables })) {
    if (errors) throw errors;
    return data;
  }
  throw new Error('No answer');
}
