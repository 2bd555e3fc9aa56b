// Writes what graphql-codegen's client preset makes of the operations on standard input: persisted-documents.json, by the
// preset itself, without the command line around it.
//   node codegen.js ../../schema.graphql < operations.graphql

import { readFileSync } from 'node:fs';
import { codegen } from '@graphql-codegen/core';
import { preset } from '@graphql-codegen/client-preset';
import { buildSchema, parse } from 'graphql';

const schema = readFileSync(process.argv[2], 'utf8');
const text = readFileSync(0, 'utf8');
const outputs = await preset.buildGeneratesSection({
  baseOutputDir: 'generated/',
  schema: parse(schema),
  schemaAst: buildSchema(schema),
  documents: [{ location: 'operations.graphql', document: parse(text), rawSDL: text }],
  config: {},
  plugins: [],
  pluginMap: {},
  presetConfig: { persistedDocuments: true },
});
const manifest = outputs.find((output) => output.filename.endsWith('persisted-documents.json'));
// The documents are collected while the others are generated.
for (const output of outputs) {
  if (output !== manifest) await codegen(output);
}
console.log(await codegen(manifest));
