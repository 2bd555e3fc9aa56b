//! Lists of metrics: filters, search, order, and pages that miss nothing and repeat nothing.

use std::collections::HashSet;

use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_lets_through_what_it_names() {
    let app = TestApp::start().await;
    let editor = zoo(&app).await;
    let cases = [
        (r#"key: { in: ["A", "NONE"] }"#, "A"),
        (r#"key: { in: [] }"#, ""),
        (r#"domain: { in: ["D-1"] }"#, "A B"),
        (r#"domain: { in: ["D-1", "D-2", "NONE"] }"#, "A B C"),
        ("domain: { isNull: true }", "D E"),
        ("domain: { isNull: false }", "A B C"),
        (r#"category: { in: ["KPI"] }"#, "A C"),
        (r#"category: { in: ["KPI", "Finance"] }"#, "A B C"),
        ("tier: { in: [TIER_1] }", "A"),
        ("tier: { in: [TIER_1, TIER_3] }", "A C"),
        ("indicatorKind: { in: [LEADING] }", "A"),
        ("indicatorKind: { in: [LEADING, OPERATIONAL] }", "A B"),
        ("metricType: { in: [RATIO] }", "A B"),
        ("metricType: { in: [SIMPLE, CONVERSION] }", "C D E"),
        ("status: { in: [ACTIVE] }", "A"),
        ("status: { in: [DRAFT, DEPRECATED] }", "B C D E"),
        (r#"ownerTeam: { in: ["Growth"] }"#, "A D"),
        ("piiInvolved: true", "B"),
        ("piiInvolved: false", "A C D E"),
        (r#"tags: { containsAll: ["x", "y"] }"#, "A"),
        (r#"tags: { containsAny: ["x", "y"] }"#, "A B C"),
        (r#"tags: { containsAll: ["x"], containsAny: ["y", "z"] }"#, "A B"),
        (r#"tags: { containsAll: [] }"#, "A B C D E"),
        (r#"tags: { containsAny: [] }"#, ""),
        (r#"createdAt: { from: "2026-01-02T00:00:00Z" }"#, "B C D E"),
        (r#"createdAt: { from: "2026-01-02T00:00:00Z", before: "2026-01-04T00:00:00Z" }"#, "B C"),
        (r#"createdAt: { before: "2026-01-01T00:00:00Z" }"#, ""),
        (r#"updatedAt: { from: "2026-02-05T00:00:00+00:00" }"#, "E"),
        (r#"updatedAt: { before: "2026-02-02T01:00:00+01:00" }"#, "A"),
        ("archived: false", "A B C D E"),
        ("archived: true", "F"),
        // All conditions of one filter must hold.
        (r#"category: { in: ["KPI"] }, tier: { in: [TIER_3] }"#, "C"),
        (r#"and: [{ category: { in: ["KPI"] } }, { tier: { in: [TIER_1] } }]"#, "A"),
        (r#"or: [{ tier: { in: [TIER_1] } }, { ownerTeam: { in: ["Growth"] } }]"#, "A D"),
        ("not: { tier: { in: [TIER_1] } }", "B C D E"),
        (r#"not: { category: { in: ["KPI"] } }"#, "B D E"),
        (r#"not: { domain: { in: ["D-1"] } }"#, "C D E"),
        (r#"not: { tags: { containsAny: ["x"] } }"#, "C D E"),
        ("not: { not: { tier: { in: [TIER_1] } } }", "A"),
        ("not: {}", ""),
        ("and: [], or: []", "A B C D E"),
        ("or: [{ tier: { in: [TIER_1] } }, {}]", "A B C D E"),
        ("or: [{ archived: true }, { tier: { in: [TIER_1] } }]", "A F"),
        ("not: { archived: false }", "F"),
        (
            r#"domain: { isNull: false }, or: [{ and: [{ tags: { containsAny: ["z"] } }, { not: { piiInvolved: true } }] }, { tier: { in: [TIER_1] } }]"#,
            "A",
        ),
    ];
    for (filter, wanted) in cases {
        let query = format!("{{ metrics(filter: {{ {filter} }}) {{ totalCount nodes {{ key }} }} }}");
        let found = editor.ask(&query, json!({})).await["metrics"].clone();
        assert_eq!(keys(&found).join(" "), wanted, "{filter}");
        assert_eq!(found["totalCount"], wanted.split_whitespace().count(), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_bounded() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let nested = |depth: usize| format!("{}archived: false{}", "not: { ".repeat(depth), " }".repeat(depth));
    let many = |count: usize| format!("or: [{}]", "{ archived: false }, ".repeat(count));
    for (filter, code) in
        [(nested(9), None), (nested(10), Some("BAD_USER_INPUT")), (many(99), None), (many(100), Some("BAD_USER_INPUT"))]
    {
        let answer = viewer.send(&format!("{{ metrics(filter: {{ {filter} }}) {{ totalCount }} }}"), json!({})).await;
        assert_eq!(answer.error_code(), code, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_words_phrases_and_misspellings() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for input in [
        json!({ "key": "METRIC-MRR", "name": "Monthly recurring revenue", "synonyms": ["subscription income"] }),
        json!({ "key": "METRIC-CHURN", "name": "Customer churn", "description": "Customers who left. Costs monthly revenue." }),
        json!({ "key": "METRIC-LOGIN-SUCCESS-RATE", "name": "Login success rate", "tags": ["security"], "definition": { "formula": "successes / attempts" } }),
        json!({ "key": "METRIC-OLD", "name": "Old revenue" }),
    ] {
        editor.write("createMetric", input).await;
    }
    let old = editor.ask(r#"{ metric(key: "METRIC-OLD") { id } }"#, json!({})).await["metric"]["id"].clone();
    editor.write("archiveMetric", json!({ "id": old })).await;
    let search = async |arguments: Value| -> Vec<String> {
        let query = "query($search: String, $filter: MetricFilter, $orderBy: MetricOrder) {
            metrics(search: $search, filter: $filter, orderBy: $orderBy) { totalCount nodes { key } } }";
        let found = editor.ask(query, arguments).await["metrics"].clone();
        assert_eq!(found["totalCount"], keys(&found).len());
        keys(&found).iter().map(|key| key.trim_start_matches("METRIC-").to_owned()).collect()
    };
    for (text, wanted) in [
        ("revenue", vec!["MRR", "CHURN"]),
        ("revenues", vec!["MRR", "CHURN"]),
        ("Monthly REVENUE", vec!["MRR", "CHURN"]),
        ("\"recurring revenue\"", vec!["MRR"]),
        ("\"revenue recurring\"", vec![]),
        ("revenue -churn", vec!["MRR"]),
        ("churn or login", vec!["CHURN", "LOGIN-SUCCESS-RATE"]),
        ("subscription", vec!["MRR"]),
        ("security", vec!["LOGIN-SUCCESS-RATE"]),
        ("attempts", vec!["LOGIN-SUCCESS-RATE"]),
        ("METRIC-LOGIN-SUCCESS-RATE", vec!["LOGIN-SUCCESS-RATE"]),
        ("recuring", vec!["MRR"]),
        ("custmer", vec!["CHURN"]),
        ("zebra", vec![]),
        ("\"", vec![]),
        ("' OR 1=1 --", vec![]),
    ] {
        let mut found = search(json!({ "search": text })).await;
        if text.contains(" or ") {
            found.sort();
        }
        assert_eq!(found, wanted, "{text}");
    }
    assert_eq!(search(json!({ "search": " " })).await.len(), 3, "blank is no search");
    assert_eq!(search(json!({ "search": "revenue", "filter": { "archived": true } })).await, ["OLD"]);
    assert_eq!(search(json!({ "search": "revenue", "filter": { "key": { "in": ["METRIC-CHURN"] } } })).await, ["CHURN"]);
    let by_key = json!({ "search": "revenue", "orderBy": { "field": "KEY" } });
    assert_eq!(search(by_key).await, ["CHURN", "MRR"]);
    let worst_first = json!({ "search": "revenue", "orderBy": { "field": "RELEVANCE", "direction": "ASC" } });
    assert_eq!(search(worst_first).await, ["CHURN", "MRR"]);
    for bad in
        [json!({ "search": "x".repeat(201) }), json!({ "search": "a\u{0}b" }), json!({ "orderBy": { "field": "RELEVANCE" } })]
    {
        let query =
            "query($search: String, $orderBy: MetricOrder) { metrics(search: $search, orderBy: $orderBy) { totalCount } }";
        assert_eq!(editor.send(query, bad.clone()).await.error_code(), Some("BAD_USER_INPUT"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_give_each_metric_once_in_every_order() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for i in 0..25 {
        // Names differ in case and accents, and repeat; "churn" is in some names, and in some descriptions.
        let name = ["Churn", "churn", "Éclair", "eclair", "Zebra"][i % 5];
        let input = json!({ "key": format!("M-{:02}", 24 - i), "name": name, "description": if i % 2 == 0 { "churn of all" } else { "churn" } });
        editor.write("createMetric", input).await;
    }
    // Ties: each moment belongs to five metrics.
    let moment = "timestamptz '2026-01-01' + (substr(key, 3)::int % 5) * interval '1 day' + interval '123456 microseconds'";
    app.database.execute(&format!("UPDATE metrics SET created_at = {moment}, updated_at = {moment}")).await;
    let mut orders = Vec::new();
    for direction in ["ASC", "DESC"] {
        for field in ["KEY", "NAME", "CREATED_AT", "UPDATED_AT"] {
            orders.push(format!("orderBy: {{ field: {field}, direction: {direction} }}"));
        }
        orders.push(format!(r#"search: "churn", orderBy: {{ field: RELEVANCE, direction: {direction} }}"#));
    }
    for order in orders {
        let count = if order.contains("search") { assert_count(&editor, &order).await } else { 25 };
        assert_walks(&editor, "metrics", &order, count, 7).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_say_what_surrounds_them() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for i in 0..5 {
        editor.write("createMetric", json!({ "key": format!("M-{i}"), "name": "M" })).await;
    }
    let page = async |arguments: Value| -> Value {
        let query = "query($first: Int, $after: String, $last: Int, $before: String) {
            metrics(first: $first, after: $after, last: $last, before: $before) {
                totalCount nodes { key } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
        let answer = editor.send(query, arguments).await;
        if answer.error_code().is_some() { json!(answer.error_code()) } else { answer.data()["metrics"].clone() }
    };
    let flags = |page: &Value| (page["pageInfo"]["hasPreviousPage"].as_bool(), page["pageInfo"]["hasNextPage"].as_bool());
    let middle = page(json!({ "first": 2, "after": page(json!({ "first": 2 })).await["pageInfo"]["endCursor"] })).await;
    assert_eq!((keys(&middle), flags(&middle)), (vec!["M-2".to_owned(), "M-3".to_owned()], (Some(true), Some(true))));
    assert_eq!(middle["totalCount"], 5, "of the whole list");
    assert_eq!(
        (&middle["edges"][0]["cursor"], &middle["edges"][1]["cursor"]),
        (&middle["pageInfo"]["startCursor"], &middle["pageInfo"]["endCursor"])
    );
    let back = page(json!({ "last": 2, "before": middle["pageInfo"]["startCursor"] })).await;
    assert_eq!((keys(&back), flags(&back)), (vec!["M-0".to_owned(), "M-1".to_owned()], (Some(false), Some(true))));
    let between =
        page(json!({ "first": 9, "after": back["pageInfo"]["startCursor"], "before": middle["pageInfo"]["endCursor"] })).await;
    assert_eq!(keys(&between), ["M-1", "M-2"]);
    assert_eq!(keys(&page(json!({ "first": 0 })).await), [""; 0]);
    assert_eq!(keys(&page(json!({ "first": 100 })).await).len(), 5);
    assert_eq!(keys(&page(json!({ "last": 1 })).await), ["M-4"]);
    for bad in [
        json!({ "first": 101 }),
        json!({ "last": 101 }),
        json!({ "first": -1 }),
        json!({ "first": 1, "last": 1 }),
        json!({ "after": "nonsense" }),
        json!({ "before": "" }),
        json!({ "after": "eyJhIjoxfQ" }),
    ] {
        assert_eq!(page(bad.clone()).await, "BAD_USER_INPUT", "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_another_order_are_refused() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for key in ["A", "B"] {
        editor.write("createMetric", json!({ "key": key, "name": "churn" })).await;
    }
    let orders = ["KEY", "NAME", "CREATED_AT", "UPDATED_AT", "RELEVANCE"];
    let list = |order: &str, after: &str| {
        format!(
            r#"{{ metrics(search: "churn", first: 1, orderBy: {{ field: {order} }}{after}) {{ pageInfo {{ endCursor }} }} }}"#
        )
    };
    for order in orders {
        let cursor = editor.ask(&list(order, ""), json!({})).await["metrics"]["pageInfo"]["endCursor"].clone();
        for other in orders {
            let answer = editor.send(&list(other, &format!(", after: {cursor}")), json!({})).await;
            let wanted = if other == order { None } else { Some("BAD_USER_INPUT") };
            assert_eq!(answer.error_code(), wanted, "a cursor by {order} in a list by {other}");
        }
    }
    for field in ["objectives", "businessDomains"] {
        let cursor = editor.ask(&list("NAME", ""), json!({})).await["metrics"]["pageInfo"]["endCursor"].clone();
        let answer = editor.send(&format!("{{ {field}(after: {cursor}) {{ totalCount }} }}"), json!({})).await;
        assert_eq!(answer.error_code(), Some("BAD_USER_INPUT"), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_postgresql_cannot_hold_is_no_fault_of_ours() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let admin = app.client(Role::Admin).await;
    let nul = "a\u{0}b";
    for (query, variables, place) in [
        ("query($t: String!) { metric(key: $t) { id } }", json!({ "t": nul }), "key"),
        ("query($t: String!) { businessDomain(key: $t) { id } }", json!({ "t": nul }), "key"),
        ("query($t: String!) { objective(key: $t) { id } }", json!({ "t": nul }), "key"),
        (
            "query($t: [String!]!) { metrics(filter: { key: { in: $t } }) { totalCount } }",
            json!({ "t": ["x", nul] }),
            "filter.key.in.1",
        ),
        (
            "query($t: [String!]!) { metrics(filter: { not: { tags: { containsAny: $t } } }) { totalCount } }",
            json!({ "t": [nul] }),
            "filter.not.tags.containsAny.0",
        ),
        (
            "query($t: [String!]!) { objectives(filter: { owner: { in: $t } }) { totalCount } }",
            json!({ "t": [nul] }),
            "filter.owner.in.0",
        ),
        (r#"{ businessDomains(filter: { ownerTeam: { in: ["a\u0000"] } }) { totalCount } }"#, json!({}), "filter.ownerTeam.in.0"),
        ("query($t: String!) { jobs(filter: { error: $t }) { totalCount } }", json!({ "t": nul }), "filter.error"),
        (
            "query($t: [String!]!) { webhookDeliveries(filter: { kind: { in: $t } }) { totalCount } }",
            json!({ "t": [nul] }),
            "filter.kind.in.0",
        ),
    ] {
        let answer = admin.send(query, variables).await;
        assert_eq!(answer.error_code(), Some("BAD_USER_INPUT"), "{query}: {}", answer.body);
        let message = format!("{place}: Must not contain the NUL character");
        assert_eq!(answer.body["errors"][0]["message"], message.as_str(), "{query}");
    }
    for (query, variables) in [
        // The cursor {"Key":"\u0000"}.
        (r#"{ metrics(after: "eyJLZXkiOiJcdTAwMDAifQ") { totalCount } }"#, json!({})),
    ] {
        let answer = viewer.send(query, variables).await;
        assert_ne!(answer.error_code(), Some("INTERNAL"), "{query}: {}", answer.body);
    }
}

/// Walks a list of the root forwards and backwards: both give each entry exactly once, in the same order.
pub async fn assert_walks(client: &Client, list: &str, arguments: &str, count: usize, page: usize) {
    assert_walk(client, "", list, arguments, "id", count, page).await;
}

/// As [`assert_walks`], for a list inside `parent`, whose entries `field` tells apart.
pub async fn assert_walks_nested(client: &Client, parent: &str, list: &str, field: &str, count: usize, page: usize) {
    assert_walk(client, parent, list, "", field, count, page).await;
}

async fn assert_walk(client: &Client, parent: &str, list: &str, arguments: &str, field: &str, count: usize, page: usize) {
    let read = async |paging: String| -> Value {
        let inner = format!(
            "{list}({arguments} {paging}) {{ nodes {{ {field} }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }}"
        );
        let query = if parent.is_empty() { format!("{{ {inner} }}") } else { format!("{{ {parent} {{ {inner} }} }}") };
        let data = client.ask(&query, json!({})).await;
        let inside = if parent.is_empty() { &data } else { data.as_object().unwrap().values().next().unwrap() };
        inside[list].clone()
    };
    let entries = |page: &Value| -> Vec<String> {
        page["nodes"].as_array().unwrap().iter().map(|node| node[field].as_str().unwrap().to_owned()).collect()
    };
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    let mut next = String::new();
    loop {
        let found = read(format!("first: {page} {next}")).await;
        assert_eq!(found["pageInfo"]["hasPreviousPage"], !forwards.is_empty());
        forwards.extend(entries(&found));
        if found["pageInfo"]["hasNextPage"] != true || forwards.len() > count {
            break;
        }
        next = format!("after: {}", found["pageInfo"]["endCursor"]);
    }
    let mut previous = String::new();
    loop {
        let found = read(format!("last: {page} {previous}")).await;
        assert_eq!(found["pageInfo"]["hasNextPage"], !backwards.is_empty());
        backwards.splice(0..0, entries(&found));
        if found["pageInfo"]["hasPreviousPage"] != true || backwards.len() > count {
            break;
        }
        previous = format!("before: {}", found["pageInfo"]["startCursor"]);
    }
    assert_eq!(forwards.len(), count, "{list} {arguments}");
    assert_eq!(forwards.iter().collect::<HashSet<_>>().len(), count, "{list} {arguments}");
    assert_eq!(backwards, forwards, "{list} {arguments}");
}

async fn assert_count(client: &Client, arguments: &str) -> usize {
    let found = client.ask(&format!("{{ metrics({arguments}) {{ totalCount }} }}"), json!({})).await;
    let count = found["metrics"]["totalCount"].as_u64().unwrap() as usize;
    assert!(count > 7, "more than a page: {count}");
    count
}

/// Six metrics, of which F is archived; A was made on January 1st and changed on February 1st, B a day later, …
async fn zoo(app: &TestApp) -> Client {
    let editor = app.client(Role::Editor).await;
    for key in ["D-1", "D-2"] {
        editor.write("createBusinessDomain", json!({ "key": key, "name": key })).await;
    }
    for input in [
        json!({ "key": "A", "name": "A", "domain": "D-1", "category": "KPI", "tier": "TIER_1", "indicatorKind": "LEADING", "metricType": "RATIO",
                "status": "ACTIVE", "governance": { "ownerTeam": "Growth" }, "tags": ["x", "y"] }),
        json!({ "key": "B", "name": "B", "domain": "D-1", "category": "Finance", "tier": "TIER_2", "indicatorKind": "OPERATIONAL",
                "metricType": "RATIO", "status": "DEPRECATED", "governance": { "piiInvolved": true }, "tags": ["x", "z"] }),
        json!({ "key": "C", "name": "C", "domain": "D-2", "category": "KPI", "tier": "TIER_3", "metricType": "CONVERSION", "tags": ["y"] }),
        json!({ "key": "D", "name": "D", "governance": { "ownerTeam": "Growth" } }),
        json!({ "key": "E", "name": "E" }),
    ] {
        editor.write("createMetric", input).await;
    }
    let gone = editor.write("createMetric", json!({ "key": "F", "name": "F", "tags": ["x"] })).await;
    editor.write("archiveMetric", json!({ "id": gone["id"] })).await;
    app.database
        .execute(
            "UPDATE metrics SET created_at = timestamptz '2026-01-01 00:00Z' + (ascii(key) - 65) * interval '1 day',
                                     updated_at = timestamptz '2026-02-01 00:00Z' + (ascii(key) - 65) * interval '1 day'",
        )
        .await;
    editor
}

fn keys(list: &Value) -> Vec<String> {
    list["nodes"].as_array().unwrap().iter().map(|node| node["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_with_a_filter_finds_the_few_among_many() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "D-RARE", "name": "Rare" })).await;
    editor.write("createMetric", json!({ "key": "M", "name": "Revenue", "tags": ["common"], "category": "Common" })).await;
    // More that match than are ranked.
    app.database
        .execute(
            "DO $$ DECLARE columns text; values text; BEGIN
                 SELECT string_agg(name, ', '),
                        string_agg(CASE name WHEN 'id' THEN 'gen_random_uuid()' WHEN 'key' THEN 'key || number' ELSE name END, ', ')
                 INTO columns, values
                 FROM (SELECT quote_ident(column_name) AS name FROM information_schema.columns
                       WHERE table_name = 'metrics' AND table_schema = 'public' AND is_generated = 'NEVER') AS own;
                 EXECUTE format('INSERT INTO metrics (%s) SELECT %s FROM metrics, generate_series(1, 6000) AS number', columns, values);
             END $$",
        )
        .await;
    let rare = json!({
        "key": "RARE", "name": "Revenue of a rare kind", "tags": ["rare", "common"], "category": "Rare", "tier": "TIER_1",
        "domain": "D-RARE", "governance": { "ownerTeam": "Growth" },
    });
    editor.write("createMetric", rare).await;
    editor.write("createMetric", json!({ "key": "OTHER", "name": "Churn", "tags": ["rare"] })).await;
    for filter in [
        r#"tags: { containsAny: ["rare", "none"] }"#,
        r#"tags: { containsAll: ["rare", "common"] }"#,
        r#"tags: { containsAll: ["rare"], containsAny: ["common"] }"#,
        r#"category: { in: ["Rare"] }"#,
        "tier: { in: [TIER_1] }",
        r#"ownerTeam: { in: ["Growth"] }, archived: false"#,
        r#"domain: { in: ["D-RARE"] }"#,
        r#"key: { in: ["RARE", "OTHER"] }"#,
        r#"not: { category: { in: ["Common"] } }"#,
        r#"or: [{ tags: { containsAny: ["rare"] } }, { tier: { in: [TIER_1] } }]"#,
    ] {
        for order in ["", ", orderBy: { field: KEY }"] {
            let query = format!(
                r#"{{ metrics(first: 5, search: "revenue", filter: {{ {filter} }}{order}) {{ nodes {{ key }} totalCount }} }}"#
            );
            let found = editor.ask(&query, json!({})).await;
            assert_eq!(found["metrics"], json!({ "nodes": [{ "key": "RARE" }], "totalCount": 1 }), "{filter}{order}");
        }
    }
    let all = editor.ask(r#"{ metrics(search: "revenue", first: 1) { totalCount } }"#, json!({})).await;
    assert_eq!(all["metrics"]["totalCount"], 5000, "no more are ranked");
}
