/** GraphiQL itself. Imported dynamically, so that all of it stays out of the first load. */

import { GraphiQL } from 'graphiql';
import 'graphiql/style.css';
import './explorer.css';
import { fetcher } from './fetcher';
import { starters } from './starters';

const tabs = starters.map(({ query, variables }) => ({ query, variables: variables ?? null }));

export default function Explorer() {
  return (
    <main className="explorer">
      {/* Headers may hold API keys, so the setting that keeps them in localStorage is not offered. */}
      <GraphiQL
        fetcher={fetcher}
        defaultTabs={tabs}
        defaultEditorToolsVisibility="variables"
        showPersistHeadersSettings={false}
      />
    </main>
  );
}
