// Subscribes with graphql-sse, and prints the first N answers as JSON.
//   node subscribe-sse.js http://127.0.0.1:8080/graphql TOKEN N < subscription.graphql

import { readFileSync } from 'node:fs';
import { createClient } from 'graphql-sse';

const [url, token, count] = process.argv.slice(2);
const client = createClient({ url, headers: { Authorization: `Bearer ${token}` } });
const answers = [];
for await (const answer of client.iterate({ query: readFileSync(0, 'utf8') })) {
  answers.push(answer);
  if (answers.length === Number(count)) break;
}
console.log(JSON.stringify(answers));
client.dispose();
