// MDL_URL=https://mdl.example.com/graphql MDL_API_KEY=mdl_… node follow-sse.mjs

import { createClient } from 'graphql-sse';
import { follow } from './follow.mjs';

function connect(connected) {
  return createClient({
    url: process.env.MDL_URL,
    headers: async () => ({ 'X-API-Key': process.env.MDL_API_KEY }), // Asked for at each connection.
    retryAttempts: 0, // It would subscribe again after the cursor that it began with.
    on: { connected },
  });
}

for await (const { metrics, change } of follow(connect)) {
  console.log(metrics ? `${metrics.length} metrics` : `${change.kind} ${change.key}`);
}
