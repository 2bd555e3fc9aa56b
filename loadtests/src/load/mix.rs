//! What users ask for: documents and variables as unevenly popular as they are in life, and some writes.
//!
//! Popularity follows Zipf's law: the second most popular is asked for half as often as the first, the third a third as often. That holds for
//! documents, and for the metrics, domains and searches that they are asked for with.

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalog::{Catalog, USERS_PER_EDITOR};

/// A request to send.
pub struct Operation {
    pub document: &'static str,
    pub is_query: bool,
    /// JSON.
    pub body: Vec<u8>,
}

struct Query {
    name: &'static str,
    text: &'static str,
    /// The variables that it is asked with.
    variables: fn(&Popular) -> &Ranked<Value>,
}

struct Write {
    name: &'static str,
    text: &'static str,
    variables: fn(&Popular, &mut StdRng) -> Value,
}

/// The most popular first.
const QUERIES: [Query; 8] = [
    Query { name: "metric", text: include_str!("../../shapes/q1.graphql"), variables: |popular| &popular.metrics },
    Query { name: "metrics", text: include_str!("../../shapes/q2.graphql"), variables: |popular| &popular.nothing },
    Query { name: "search", text: include_str!("../../shapes/q4.graphql"), variables: |popular| &popular.searches },
    Query { name: "objectives", text: include_str!("../../shapes/q3.graphql"), variables: |popular| &popular.nothing },
    Query { name: "domain", text: include_str!("../../mix/domain.graphql"), variables: |popular| &popular.domains },
    Query { name: "lineage", text: include_str!("../../mix/lineage.graphql"), variables: |popular| &popular.metrics },
    Query { name: "history", text: include_str!("../../mix/history.graphql"), variables: |popular| &popular.metrics },
    Query { name: "stats", text: include_str!("../../mix/stats.graphql"), variables: |popular| &popular.nothing },
];

/// With how many of ten writes each is: progress is reported far more often than metrics are defined.
const WRITES: [(u32, Write); 3] = [
    (
        7,
        Write {
            name: "reportProgress",
            text: include_str!("../../mix/report-progress.graphql"),
            variables: |popular, rng| json!({ "input": { "id": popular.key_results.draw(rng), "currentValue": rng.random_range(0.0..100.0) } }),
        },
    ),
    (
        2,
        Write {
            name: "updateMetric",
            text: include_str!("../../mix/update-metric.graphql"),
            variables: |popular, rng| {
                let description = format!("As agreed in review {}.", rng.random_range(1..1_000_000));
                json!({ "input": { "id": popular.metric_ids.draw(rng), "description": description } })
            },
        },
    ),
    (
        1,
        Write {
            name: "createMetric",
            text: include_str!("../../shapes/q5.graphql"),
            variables: |_, _| {
                let key = format!("LOAD-{}", Uuid::now_v7().simple());
                json!({ "input": { "key": key, "name": format!("Load {key}"), "description": "Made by a load test." } })
            },
        },
    ),
];

/// Draws what users of each tenant send.
pub struct Mix {
    tenants: Vec<Popular>,
    queries: WeightedIndex<f64>,
    writes: WeightedIndex<u32>,
    /// The share of writes among what an editor sends.
    editors_writes: f64,
}

impl Mix {
    /// `writes`: their share in all requests, from 0 to what editors are of all users.
    pub fn new(catalogs: Vec<Catalog>, writes: f64) -> Self {
        Self {
            tenants: catalogs.into_iter().map(Popular::new).collect(),
            queries: zipf(QUERIES.len()),
            writes: WeightedIndex::new(WRITES.iter().map(|(weight, _)| *weight)).expect("some writes have a weight"),
            editors_writes: (writes * USERS_PER_EDITOR as f64).clamp(0.0, 1.0),
        }
    }

    pub fn draw(&self, tenant: usize, is_editor: bool, rng: &mut StdRng) -> Operation {
        let popular = &self.tenants[tenant];
        if is_editor && rng.random_bool(self.editors_writes) {
            let Write { name, text, variables } = &WRITES[self.writes.sample(rng)].1;
            return Operation { document: name, is_query: false, body: body(text, &variables(popular, rng)) };
        }
        let query = &QUERIES[self.queries.sample(rng)];
        query.asked_with((query.variables)(popular).draw(rng))
    }

    /// Every query with all that it is asked with, each with its tenant.
    pub fn queries(&self) -> impl Iterator<Item = (usize, Operation)> {
        let of_tenant = |(tenant, popular)| {
            QUERIES.iter().flat_map(move |query| {
                (query.variables)(popular).things.iter().map(move |variables| (tenant, query.asked_with(variables)))
            })
        };
        self.tenants.iter().enumerate().flat_map(of_tenant)
    }
}

impl Query {
    fn asked_with(&self, variables: &Value) -> Operation {
        Operation { document: self.name, is_query: true, body: body(self.text, variables) }
    }
}

fn body(text: &str, variables: &Value) -> Vec<u8> {
    json!({ "query": text, "variables": variables }).to_string().into_bytes()
}

/// A tenant's entries, each drawn as often as it is popular; those of queries as their variables.
struct Popular {
    nothing: Ranked<Value>,
    metrics: Ranked<Value>,
    /// A word, and a tag that it is looked for with.
    searches: Ranked<Value>,
    domains: Ranked<Value>,
    metric_ids: Ranked,
    key_results: Ranked,
}

impl Popular {
    fn new(catalog: Catalog) -> Self {
        let by_key = |keys: Vec<String>| Ranked::new(keys.into_iter().map(|key| json!({ "key": key })).collect());
        let searches = catalog.words.into_iter().zip(catalog.tags.into_iter().cycle());
        Self {
            nothing: Ranked::new(vec![json!({})]),
            metrics: by_key(catalog.metric_keys),
            searches: Ranked::new(searches.map(|(word, tag)| json!({ "search": word, "tag": tag })).collect()),
            domains: by_key(catalog.domain_keys),
            metric_ids: Ranked::new(catalog.metric_ids),
            key_results: Ranked::new(catalog.key_result_ids),
        }
    }
}

/// Things in the order of their popularity; at least one.
struct Ranked<T = String> {
    things: Vec<T>,
    rank: WeightedIndex<f64>,
}

impl<T> Ranked<T> {
    fn new(things: Vec<T>) -> Self {
        let rank = zipf(things.len());
        Self { things, rank }
    }

    fn draw(&self, rng: &mut StdRng) -> &T {
        &self.things[self.rank.sample(rng)]
    }
}

/// Ranks of `count` things, which must be at least one, by Zipf's law with exponent 1.
fn zipf(count: usize) -> WeightedIndex<f64> {
    WeightedIndex::new((1..=count).map(|rank| 1.0 / rank as f64))
        .expect("there is at least one rank, and all weights are positive")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_second_comes_half_as_often_as_the_first() {
        let mut rng = StdRng::seed_from_u64(1);
        let rank = zipf(100);
        let mut counts = [0u32; 100];
        (0..100_000).for_each(|_| counts[rank.sample(&mut rng)] += 1);
        for of in [2, 3, 10] {
            let times = f64::from(counts[0]) / f64::from(counts[of - 1]);
            assert!((times / of as f64 - 1.0).abs() < 0.1, "{of}: {times}");
        }
    }

    #[test]
    fn two_of_a_hundred_requests_write() {
        let some = || vec!["a".to_owned()];
        let catalog = || Catalog {
            metric_keys: some(),
            metric_ids: some(),
            tags: some(),
            words: some(),
            domain_keys: some(),
            key_result_ids: some(),
        };
        let mix = Mix::new(vec![catalog()], 0.02);
        let mut rng = StdRng::seed_from_u64(1);
        let writes = (0..20_000).filter(|n| !mix.draw(0, n % USERS_PER_EDITOR == 0, &mut rng).is_query).count();
        assert!((340..460).contains(&writes), "{writes}");
        let body: Value = serde_json::from_slice(&mix.draw(0, false, &mut rng).body).unwrap();
        assert!(body["query"].as_str().unwrap().contains("query "));
        assert_eq!(mix.queries().count(), QUERIES.len(), "with one of each");
    }
}
