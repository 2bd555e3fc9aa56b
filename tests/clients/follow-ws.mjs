// MDL_URL=wss://mdl.example.com/graphql MDL_API_KEY=mdl_… node follow-ws.mjs

import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { follow } from './follow.mjs';

function connect(connected) {
  let silence;
  // The server sends a ping every MDL_LIVE_PING_SECONDS, 15 unless it is told otherwise.
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => client.terminate(), 60_000);
  };
  const client = createClient({
    url: process.env.MDL_URL,
    webSocketImpl: WebSocket, // Browsers have their own, and Node from 22 on.
    connectionParams: async () => ({ 'X-API-Key': process.env.MDL_API_KEY }), // Asked for at each connection.
    retryAttempts: 0, // It would subscribe again after the cursor that it began with.
    lazyCloseTimeout: 1_000, // What is asked one after the other takes one connection.
    on: { connected, message: heard, closed: () => clearTimeout(silence) },
  });
  return client;
}

for await (const { metrics, change } of follow(connect)) {
  console.log(metrics ? `${metrics.length} metrics` : `${change.kind} ${change.key}`);
}
