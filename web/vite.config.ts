import { defineConfig, loadEnv, type Plugin } from 'vite';

/**
 * GraphiQL's stylesheet carries Roboto and Fira Code as data: URLs, four times the weight of everything else in it. The page
 * uses the fonts of the system instead (see src/explorer.css), so the CSP needs no font-src at all.
 */
function withoutBundledFonts(): Plugin {
  return {
    name: 'without-bundled-fonts',
    enforce: 'pre',
    transform: {
      filter: { id: /\/graphiql\/dist\/style\.css$/ },
      handler: (css) => css.replace(/@font-face\s*\{[^}]*\}/g, ''),
    },
  };
}

export default defineConfig(({ mode }) => {
  const api = loadEnv(mode, '.', 'MDL_')['MDL_API_URL'] ?? 'http://127.0.0.1:8080';

  return {
    plugins: [withoutBundledFonts()],
    // There is no index.html: a path that is not a page is a 404 here, as it is behind the API.
    appType: 'mpa',
    resolve: {
      alias: { 'react-style-singleton': new URL('src/noInjectedStyles.ts', import.meta.url).pathname },
    },
    server: {
      proxy: { '/graphql': { target: api, ws: true } },
    },
    build: {
      target: 'es2023',
      // Every asset is a file of its own, so that the CSP can say 'self'.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      // GraphiQL is 600 kB that load together; Vite would advise to split them at every build.
      chunkSizeWarningLimit: 650,
      rolldownOptions: {
        input: 'graphiql.html',
        // Every file of GraphiQL's dependencies says "use client", which means nothing to a page without a server part.
        checks: { moduleLevelDirective: false },
        output: {
          codeSplitting: {
            // GraphiQL imports CodeMirror and its two dozen add-ons dynamically, and needs them all at once. In one chunk they load
            // beside GraphiQL; in their own, only after it has run.
            groups: [{ name: 'codemirror', test: /node_modules\/codemirror/ }],
          },
        },
      },
    },
  };
});
