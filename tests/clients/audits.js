// Runs the server audits of graphql-http against a URL, and prints those that fail as JSON.
//   node audits.js http://127.0.0.1:8080/graphql TOKEN

import { serverAudits } from 'graphql-http';

const [url, token] = process.argv.slice(2);

function fetchFn(input, init = {}) {
  const headers = new Headers(init.headers);
  headers.set('Authorization', `Bearer ${token}`);
  return fetch(input, { ...init, headers });
}

const failed = [];
const audits = serverAudits({ url, fetchFn });
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status !== 'ok') failed.push(`${result.status}: ${result.name}: ${result.reason}`);
}
console.log(JSON.stringify({ audits: audits.length, failed }));
