// Subscribes with graphql-ws, and prints the first N answers as JSON.
//   node subscribe-ws.js ws://127.0.0.1:8080/graphql TOKEN N < subscription.graphql

import { readFileSync } from 'node:fs';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, token, count] = process.argv.slice(2);
const client = createClient({
  url,
  webSocketImpl: WebSocket,
  connectionParams: { Authorization: `Bearer ${token}` },
  on: { connected: () => process.stderr.write('connected\n') },
});
const answers = [];
for await (const answer of client.iterate({ query: readFileSync(0, 'utf8') })) {
  answers.push(answer);
  if (answers.length === Number(count)) break;
}
console.log(JSON.stringify(answers));
await client.dispose();
