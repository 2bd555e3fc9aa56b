// The first four shapes on Mercurius, with its compiled queries and its loaders: one statement for each level, and nothing else. It
// knows no tenants (its sessions are of one, see PGOPTIONS), credentials, limits or transactions.
import Fastify from 'fastify'
import mercurius from 'mercurius'
import pg from 'pg'

const { DATABASE_URL, DATABASE_POOL_SIZE, PORT } = process.env
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(DATABASE_POOL_SIZE) })

/** Rows of a prepared statement. */
const rows = async (name, text, values) => (await pool.query({ name, text, values })).rows

const schema = `
  type Query {
    metric(key: String!): Metric
    metrics(first: Int!, search: String, filter: MetricFilter): Metrics!
    objectives(first: Int!): Objectives!
  }
  enum Tier { TIER_1 TIER_2 TIER_3 }
  input Tiers { in: [Tier!]! }
  input Tags { containsAny: [String!]! }
  input MetricFilter { tier: Tiers! tags: Tags! }
  type Metrics { nodes: [Metric!]! }
  type Objectives { nodes: [Objective!]! }
  type BusinessDomain { id: ID! name: String! }
  type Metric {
    id: ID! key: String! name: String! shortName: String description: String! category: String tier: String status: String!
    metricType: String! tags: [String!]! version: String! updatedAt: String! domain: BusinessDomain
  }
  type Objective { id: ID! key: String! name: String! status: String! keyResults: [KeyResult!]! }
  type KeyResult { id: ID! name: String! currentValue: Float targetValue: Float metrics: [Metric!]! }
`

const METRIC = `id, key, name, short_name AS "shortName", description, category, tier, status, metric_type AS "metricType", tags,
  version_major || '.' || version_minor || '.' || version_patch AS version, updated_at AS "updatedAt", domain_id AS "domainId"`

const metric = row => ({ ...row, updatedAt: row.updatedAt.toISOString() })

async function metrics (_, { first, search, filter }) {
  const found = search
    ? await rows('search', `SELECT ${METRIC} FROM metrics
        WHERE id = ANY(ARRAY(SELECT find_metrics($1, NULL, $2, NULL, $3, NULL, NULL, false, 5000, $4)))
        ORDER BY metric_rank(search, name, $1) DESC, id DESC LIMIT $4`,
      [search, filter.tags.containsAny, filter.tier.in.map(tier => tier.toLowerCase()), first])
    : await rows('list', `SELECT ${METRIC} FROM metrics WHERE archived_at IS NULL ORDER BY key LIMIT $1`, [first])
  return { nodes: found.map(metric) }
}

const resolvers = {
  Query: {
    metric: async (_, { key }) => (await rows('metric', `SELECT ${METRIC} FROM metrics WHERE key = $1`, [key])).map(metric)[0],
    metrics,
    objectives: async (_, { first }) => ({
      nodes: await rows('objectives', 'SELECT id, key, name, status FROM objectives WHERE archived_at IS NULL ORDER BY key LIMIT $1', [first])
    })
  }
}

/** The rows that belong to each parent. */
async function ofEach (parents, name, text) {
  const lists = new Map(parents.map(({ obj }) => [obj.id, []]))
  for (const row of await rows(name, text, [[...lists.keys()]])) lists.get(row.parent).push(row)
  return parents.map(({ obj }) => lists.get(obj.id))
}

const loaders = {
  Metric: {
    async domain (parents) {
      const ids = [...new Set(parents.map(({ obj }) => obj.domainId))]
      const found = await rows('domains', 'SELECT id, name FROM business_domains WHERE id = ANY($1)', [ids])
      const domains = new Map(found.map(domain => [domain.id, domain]))
      return parents.map(({ obj }) => domains.get(obj.domainId))
    }
  },
  Objective: {
    keyResults: parents => ofEach(parents, 'key results', `SELECT objective_id AS parent, id, name, current_value AS "currentValue",
      target_value AS "targetValue" FROM key_results WHERE objective_id = ANY($1) AND archived_at IS NULL ORDER BY position`)
  },
  KeyResult: {
    metrics: parents => ofEach(parents, 'their metrics', `SELECT of.key_result_id AS parent, m.id, m.key, m.name, m.domain_id AS "domainId"
      FROM key_result_metrics of JOIN metrics m ON m.tenant_id = of.tenant_id AND m.key = of.metric_key
      WHERE of.key_result_id = ANY($1) ORDER BY of.position`)
  }
}

const app = Fastify()
app.register(mercurius, { schema, resolvers, loaders, jit: 1, path: '/graphql' })
await app.listen({ port: Number(PORT), host: '127.0.0.1' })
