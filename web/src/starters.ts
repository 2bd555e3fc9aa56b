/**
 * The operations that GraphiQL opens with, one tab each, for somebody who has never seen the schema.
 *
 * Plain strings, so that a test can validate each `query` against schema.graphql. `variables` is the JSON text that the variables
 * editor shows. The name of the operation is the title of its tab.
 */

export interface Starter {
  name: string;
  query: string;
  variables?: string;
}

export const starters: Starter[] = [
  {
    name: 'Find metrics',
    query: `# Metrics that match a search. The
# endCursor, as "after", is the next page.
query FindMetrics(
  $search: String
  $after: String
) {
  metrics(
    first: 10
    after: $after
    search: $search
  ) {
    edges {
      node {
        key
        name
        tier
        status
        domain {
          name
        }
      }
    }
    pageInfo {
      endCursor
      hasNextPage
    }
  }
}
`,
    variables: `{
  "search": "revenue"
}
`,
  },
  {
    name: 'One metric, with lineage',
    query: `# What a metric means, how it is
# computed, and what it depends on.
query MetricWithLineage($key: String!) {
  metric(key: $key) {
    name
    description
    definition {
      formula
      unit
      expectedDirection
    }
    upstream(first: 10) {
      edges {
        node {
          key
          name
        }
      }
    }
    downstream(first: 10) {
      edges {
        node {
          key
          name
        }
      }
    }
    versions(first: 5) {
      edges {
        node {
          version
          createdAt
        }
      }
    }
  }
}
`,
    variables: `{
  "key": "METRIC-MRR"
}
`,
  },
  {
    name: 'Objectives and their progress',
    query: `# Objectives, their key results,
# and how far each has come.
query Objectives {
  objectives(first: 10) {
    edges {
      node {
        name
        progress
        keyResults {
          name
          progress
          status
          metrics {
            key
            name
          }
        }
      }
    }
  }
}
`,
  },
  {
    name: 'Import, as a dry run',
    query: `# What an import would change.
# With dryRun it changes nothing.
mutation ImportDryRun($input: ImportCatalogInput!) {
  importCatalog(input: $input) {
    import {
      id
      state
    }
    userErrors {
      field
      code
      message
    }
  }
}
`,
    variables: `{
  "input": {
    "dryRun": true,
    "format": "JSON",
    "text": "{\\"metrics\\": [{\\"metric_id\\": \\"METRIC-EXAMPLE\\", \\"name\\": \\"Example\\"}]}"
  }
}
`,
  },
];
