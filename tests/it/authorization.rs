//! Who may use each root field, and that a denied call changes nothing.

use std::collections::BTreeSet;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use mdl::actor::Role;
use mdl_tests::TestApp;

use crate::root_fields::{MUTATIONS, Needs, QUERIES, RootField, Seed, call, fingerprint};

#[test]
fn every_root_field_has_a_case() {
    let schema = parse_schema(mdl_api::graphql::schema::sdl()).unwrap();
    for (root, cases) in [("Query", QUERIES), ("Mutation", MUTATIONS)] {
        let fields: BTreeSet<String> = schema
            .definitions
            .iter()
            .find_map(|definition| match definition {
                TypeSystemDefinition::Type(kind) if kind.node.name.node == root => match &kind.node.kind {
                    TypeKind::Object(object) => {
                        Some(object.fields.iter().map(|field| field.node.name.node.to_string()).collect())
                    }
                    _ => None,
                },
                _ => None,
            })
            .unwrap_or_else(|| panic!("the schema has a type {root}"));
        let known: BTreeSet<String> = cases.iter().map(|case| case.name.to_owned()).collect();
        assert_eq!(fields, known, "the fields of {root} and the cases in root_fields.rs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let seed = Seed::plant(&app).await;
    let callers = [
        (None, app.anonymous().clone()),
        (Some(Role::Viewer), app.client(Role::Viewer).await),
        (Some(Role::Editor), app.client(Role::Editor).await),
    ];
    let before = fingerprint(&app).await;
    for (role, client) in &callers {
        for field in QUERIES.iter().chain(MUTATIONS).filter(|field| !field.needs.allow(*role)) {
            let answer = call(client, field, &seed).await;
            let expected = if role.is_none() { "UNAUTHENTICATED" } else { "FORBIDDEN" };
            assert_eq!(answer.error_code(), Some(expected), "{} for {role:?}: {}", field.name, answer.body);
        }
    }
    assert_eq!(fingerprint(&app).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_is_let_through() {
    let app = TestApp::start().await;
    let seed = Seed::plant(&app).await;
    for role in [Role::Viewer, Role::Editor, Role::Admin] {
        let client = app.client(role).await;
        let allowed = |field: &&RootField| field.needs.allow(Some(role)) && field.needs != Needs::Nobody;
        for field in QUERIES.iter().chain(MUTATIONS).filter(allowed) {
            let answer = call(&client, field, &seed).await;
            assert!(answer.error_code().is_none(), "{} for {role:?}: {}", field.name, answer.body);
        }
    }
}
