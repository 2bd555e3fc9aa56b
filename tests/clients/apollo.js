// Asks the same query, or sends the same mutation, twice with Apollo Client and its persisted-query link, and prints what went over the wire as JSON.
//   node apollo.js http://127.0.0.1:8080/graphql TOKEN [get] < query.graphql      an empty TOKEN for none
//   node apollo.js http://127.0.0.1:8080/graphql TOKEN id DOCUMENT_ID < query.graphql      the id instead of the SHA-256

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';

const [url, token, how, documentId] = process.argv.slice(2);
const requests = [];

async function recordingFetch(input, init) {
  const response = await fetch(input, init);
  const body = await response.clone().json();
  const sent = init.body ?? decodeURIComponent(String(input));
  requests.push({
    method: init.method,
    text: sent.includes('"query":') || /[?&]query=/.test(sent),
    status: response.status,
    code: body.errors?.[0]?.extensions?.code ?? null,
  });
  return response;
}

const persisted = new PersistedQueryLink({
  ...(how === 'id'
    ? { generateHash: () => documentId }
    : { sha256: (text) => createHash('sha256').update(text).digest('hex') }),
  useGETForHashedQueries: how === 'get',
});
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const http = new HttpLink({ uri: url, fetch: recordingFetch, headers });
const client = new ApolloClient({ cache: new InMemoryCache(), link: ApolloLink.from([persisted, http]) });

const document = gql(readFileSync(0, 'utf8'));
const mutates = document.definitions.some((definition) => definition.operation === 'mutation');
const send = () =>
  mutates ? client.mutate({ mutation: document }) : client.query({ query: document, fetchPolicy: 'network-only' });
const answers = [];
for (let i = 0; i < 2; i += 1) {
  try {
    const { data, error } = await send();
    answers.push(error ? { error: error.message } : data);
  } catch (error) {
    answers.push({ error: error.message });
  }
}
console.log(JSON.stringify({ requests, answers }));
