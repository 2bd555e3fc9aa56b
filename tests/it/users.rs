//! People, and what their membership lets them do.

use mdl::actor::Role;
use mdl_tests::{Answer, Client, PASSWORD, TestApp, email, eventually};
use serde_json::{Value, json};

const USER: &str = "user { id email name role suspendedAt }";
const NONE: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_adds_people() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let answer = admin.mutate("createUser", ada(), USER).await;
    assert_eq!(answer.user_errors(), NONE);
    let user = answer.payload()["user"].clone();
    assert_eq!((&user["email"], &user["name"], &user["role"]), (&json!("ada@example.com"), &json!("Ada"), &json!("EDITOR")));
    let editor = app.anonymous().sign_in("acme", "ADA@example.com", PASSWORD).await;
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;

    let before = app.database.contents().await;
    assert_eq!(admin.mutate("createUser", ada(), USER).await.user_errors(), ["email: TAKEN"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_new_user_is_said_at_once() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    let bad = json!({ "email": "ada", "name": " ", "password": "short", "role": "VIEWER" });
    assert_eq!(
        admin.mutate("createUser", bad, USER).await.user_errors(),
        ["email: INVALID", "name: REQUIRED", "password: INVALID"]
    );
    let same = json!({ "email": "ada.lovelace@x.org", "name": "Ada", "password": "ada.lovelace@x.org", "role": "VIEWER" });
    assert_eq!(admin.mutate("createUser", same, USER).await.user_errors(), ["password: INVALID"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_manage_people() {
    let app = TestApp::start().await;
    let victim = id_of(&app, Role::Admin).await;
    let attempts = [
        ("createUser", ada()),
        ("updateUser", json!({ "id": victim, "name": "Eve" })),
        ("setRole", json!({ "id": victim, "role": "VIEWER" })),
        ("suspendUser", json!({ "id": victim })),
        ("resumeUser", json!({ "id": victim })),
        ("resetPassword", json!({ "id": victim, "password": PASSWORD })),
        ("removeMembership", json!({ "id": victim })),
    ];
    for role in [Role::Viewer, Role::Editor] {
        let client = app.client(role).await;
        let own = id_of(&app, role).await;
        let before = app.database.contents().await;
        for (field, input) in &attempts {
            let answer = client.mutate(field, input.clone(), "").await;
            assert_eq!(answer.error_code(), Some("FORBIDDEN"), "{role:?} {field}: {}", answer.body);
        }
        let promotion = client.mutate("setRole", json!({ "id": own, "role": "ADMIN" }), "").await;
        assert_eq!(promotion.error_code(), Some("FORBIDDEN"));
        assert_eq!(client.send("{ users { totalCount } }", json!({})).await.error_code(), Some("FORBIDDEN"));
        assert_eq!(app.database.contents().await, before, "{role:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_about_those_who_may_do_more() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let key = async |scopes: Value| {
        let made = admin.mutate("createApiKey", json!({ "name": "people", "scopes": scopes }), "key").await;
        admin.with(made.payload()["key"].as_str().unwrap())
    };
    let (manager, reader) = (key(json!(["MANAGE"])).await, key(json!(["MANAGE", "CATALOG_READ"])).await);
    let (one, editor, viewer) =
        (id_of(&app, Role::Admin).await, id_of(&app, Role::Editor).await, id_of(&app, Role::Viewer).await);
    let attempts = [
        (&manager, "createUser", json!({ "email": "a@b", "name": "A", "password": PASSWORD, "role": "VIEWER" }), "role"),
        (&reader, "createUser", json!({ "email": "a@b", "name": "A", "password": PASSWORD, "role": "ADMIN" }), "role"),
        (&reader, "setRole", json!({ "id": viewer, "role": "EDITOR" }), "role"),
        (&reader, "setRole", json!({ "id": editor, "role": "VIEWER" }), "id"),
        (&reader, "suspendUser", json!({ "id": editor }), "id"),
        (&reader, "resumeUser", json!({ "id": editor }), "id"),
        (&reader, "removeMembership", json!({ "id": editor }), "id"),
        (&reader, "resetPassword", json!({ "id": editor, "password": PASSWORD }), "id"),
        (&reader, "resetPassword", json!({ "id": one, "password": PASSWORD }), "id"),
    ];
    let people = async || {
        let contents = app.database.contents().await;
        ["users", "memberships", "sessions"].map(|table| contents[table].clone())
    };
    let before = people().await;
    for (client, field, input, named) in attempts {
        let answer = client.mutate(field, input, "").await;
        let errors = answer.user_errors();
        assert!(!errors.is_empty() && errors.iter().all(|error| *error == format!("{named}: INVALID")), "{field}: {errors:?}");
        assert!(answer.body.to_string().contains("You may not do "), "{}", answer.body);
    }
    assert_eq!(people().await, before);

    let new = json!({ "email": "a@b", "name": "A", "password": PASSWORD, "role": "VIEWER" });
    assert_eq!(reader.mutate("createUser", new, USER).await.user_errors(), NONE);
    for field in ["suspendUser", "resumeUser"] {
        assert_eq!(reader.mutate(field, json!({ "id": viewer }), "").await.user_errors(), NONE, "{field}");
    }
    let reset = json!({ "id": viewer, "password": PASSWORD });
    assert_eq!(reader.mutate("resetPassword", reset, "").await.user_errors(), NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_role_counts_for_the_next_request() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (viewer, id) = (app.client(Role::Viewer).await, id_of(&app, Role::Viewer).await);
    let attempt = async || viewer.mutate("createMetric", json!({ "key": "M", "name": "M" }), "").await;
    assert_eq!(attempt().await.error_code(), Some("FORBIDDEN"));

    let promoted = set_role(&admin, &id, "EDITOR").await;
    assert_eq!(promoted.payload()["user"]["role"], "EDITOR");
    eventually("the viewer may write", async || attempt().await.error_code().is_none().then_some(())).await;
    let before = app.database.contents().await;
    assert_eq!(set_role(&admin, &id, "EDITOR").await.user_errors(), NONE);
    assert_eq!(app.database.contents().await, before, "the same call again writes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let id = id_of(&app, Role::Admin).await;
    let before = app.database.contents().await;
    assert_eq!(set_role(&admin, &id, "VIEWER").await.user_errors(), [": LAST_ADMIN"]);
    for field in ["suspendUser", "removeMembership"] {
        assert_eq!(admin.mutate(field, json!({ "id": id }), "").await.user_errors(), [": LAST_ADMIN"], "{field}");
    }
    assert_eq!(app.database.contents().await, before);

    // A suspended admin is none who could help.
    let second = id_of(&app, Role::Editor).await;
    set_role(&admin, &second, "ADMIN").await.data();
    admin.mutate("suspendUser", json!({ "id": second }), "").await.data();
    assert_eq!(set_role(&admin, &id, "VIEWER").await.user_errors(), [": LAST_ADMIN"]);
    admin.mutate("resumeUser", json!({ "id": second }), "").await.data();
    assert_eq!(set_role(&admin, &id, "VIEWER").await.user_errors(), NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_admins_cannot_demote_each_other_at_once() {
    let app = TestApp::start().await;
    let one = app.client(Role::Admin).await;
    let (first, second) = (id_of(&app, Role::Admin).await, id_of(&app, Role::Editor).await);
    set_role(&one, &second, "ADMIN").await.data();
    let other = app.client(Role::Editor).await;
    let (a, b) = tokio::join!(set_role(&one, &second, "VIEWER"), set_role(&other, &first, "VIEWER"));
    let admins = app.database.number("SELECT count(*) FROM memberships WHERE role = 'admin'").await;
    assert_eq!(admins, 1, "{} {}", a.body, b.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_member_may_nothing_until_resumed() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (editor, id) = (app.client(Role::Editor).await, id_of(&app, Role::Editor).await);
    let key = editor.mutate("createApiKey", json!({ "name": "ci", "scopes": ["CATALOG_READ"] }), "key").await;
    let program = editor.with(key.payload()["key"].as_str().unwrap());
    let ask = async || program.send("{ metrics { totalCount } }", json!({})).await.status.as_u16();
    assert_eq!(ask().await, 200);

    let suspended = admin.mutate("suspendUser", json!({ "id": id }), USER).await;
    assert!(suspended.payload()["user"]["suspendedAt"].is_string());
    eventually("the key is refused", async || (ask().await == 401).then_some(())).await;
    let before = app.database.contents().await;
    let again = admin.mutate("suspendUser", json!({ "id": id }), USER).await;
    assert_eq!(again.payload()["user"]["suspendedAt"], suspended.payload()["user"]["suspendedAt"]);
    assert_eq!(app.database.contents().await, before);

    let resumed = admin.mutate("resumeUser", json!({ "id": id }), USER).await;
    assert_eq!(resumed.payload()["user"]["suspendedAt"], Value::Null);
    eventually("the key works again", async || (ask().await == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_still_named_by_history() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (editor, id) = (app.client(Role::Editor).await, id_of(&app, Role::Editor).await);
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    editor.mutate("createApiKey", json!({ "name": "ci", "scopes": ["CATALOG_READ"] }), "key").await.data();

    assert_eq!(admin.mutate("removeMembership", json!({ "id": id }), USER).await.user_errors(), NONE);
    eventually("the session ends", async || (editor.get("/graphql?query={me{role}}").await.status == 401).then_some(())).await;
    assert_eq!(app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").await, 0);
    let metric = admin.ask(r#"{ metric(key: "M") { createdBy { id email role } } }"#, json!({})).await["metric"].clone();
    assert_eq!(metric["createdBy"], json!({ "id": id, "email": email(Role::Editor), "role": null }));
    assert_eq!(admin.mutate("removeMembership", json!({ "id": id }), USER).await.user_errors(), ["id: NOT_FOUND"]);

    let again = json!({ "email": email(Role::Editor), "name": "Back", "password": PASSWORD, "role": "VIEWER" });
    let back = admin.mutate("createUser", again, USER).await.payload()["user"].clone();
    assert_eq!((&back["id"], &back["name"], &back["role"]), (&id, &json!("Back"), &json!("VIEWER")));
}

/// Whether an answer is kept for others or not.
#[tokio::test(flavor = "multi_thread")]
async fn colleagues_see_the_name_and_no_more() {
    const ASK: &str = r#"{ metric(key: "M") { createdBy { id name email role suspendedAt } } }"#;
    const SIGNED_IN: &str = r#"{ metric(key: "M") { createdBy { lastSignedInAt } } }"#;
    let app = TestApp::start().await;
    let (admin, editor, viewer) = (app.client(Role::Admin).await, app.client(Role::Editor).await, app.client(Role::Viewer).await);
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    let id = id_of(&app, Role::Editor).await;
    let made = admin.mutate("createApiKey", json!({ "name": "reader", "scopes": ["CATALOG_READ"] }), "key").await;
    let reader = admin.with(made.payload()["key"].as_str().unwrap());
    let own = json!({ "id": id, "name": "The editor", "email": email(Role::Editor), "role": "EDITOR", "suspendedAt": null });
    let others = json!({ "id": id, "name": "The editor", "email": null, "role": null, "suspendedAt": null });
    // Each of them twice: what is kept of one must not be given to another.
    for _ in 0..2 {
        for (client, seen) in [(&admin, &own), (&viewer, &others), (&editor, &own), (&reader, &others)] {
            assert_eq!(client.ask(ASK, json!({})).await["metric"]["createdBy"], *seen);
            let signed_in = client.ask(SIGNED_IN, json!({})).await["metric"]["createdBy"]["lastSignedInAt"].clone();
            assert_eq!(signed_in.is_null(), seen == &others);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_password_ends_the_sessions() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (viewer, id) = (app.client(Role::Viewer).await, id_of(&app, Role::Viewer).await);
    let before = app.database.contents().await;
    let short = admin.mutate("resetPassword", json!({ "id": id, "password": "short" }), "").await;
    assert_eq!(short.user_errors(), ["password: INVALID"]);
    assert_eq!(app.database.contents().await, before);

    let new = "another password for them";
    assert_eq!(admin.mutate("resetPassword", json!({ "id": id, "password": new }), "").await.user_errors(), NONE);
    eventually("the session ends", async || (viewer.get("/graphql?query={me{role}}").await.status == 401).then_some(())).await;
    app.anonymous().sign_in("acme", &email(Role::Viewer), new).await;
    let log = app.database.text("SELECT string_agg(details::text, ' ') FROM audit_log").await.unwrap();
    assert!(!log.contains(new) && !log.contains("argon2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_change_their_own_name() {
    let app = TestApp::start().await;
    let (viewer, id) = (app.client(Role::Viewer).await, id_of(&app, Role::Viewer).await);
    let renamed = viewer.mutate("updateUser", json!({ "id": id, "name": " Vera " }), USER).await;
    assert_eq!(renamed.payload()["user"]["name"], "Vera");
    let before = app.database.contents().await;
    viewer.mutate("updateUser", json!({ "id": id, "name": "Vera" }), USER).await.data();
    assert_eq!(viewer.mutate("updateUser", json!({ "id": id, "name": "" }), USER).await.user_errors(), ["name: REQUIRED"]);
    let long = json!({ "id": id, "name": "x".repeat(201) });
    assert_eq!(viewer.mutate("updateUser", long, USER).await.user_errors(), ["name: TOO_LONG"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_nobody_are_told_apart_from_other_ids() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let metric = admin.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    // The id of a user, made up.
    let nobody = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([b"u".as_slice(), &[7; 16]].concat())
    };
    for field in ["suspendUser", "resumeUser", "removeMembership"] {
        let errors = async |id: Value| admin.mutate(field, json!({ "id": id }), "").await.user_errors();
        assert_eq!(errors(metric["id"].clone()).await, ["id: INVALID"], "{field}");
        assert_eq!(errors(json!("nonsense")).await, ["id: INVALID"], "{field}");
        assert_eq!(errors(json!(nobody)).await, ["id: NOT_FOUND"], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_people_is_paged_by_address() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    admin.mutate("createUser", ada(), USER).await.data();
    let query = "query($after: String) { users(first: 3, after: $after) {
        totalCount nodes { email role } pageInfo { endCursor hasNextPage hasPreviousPage } } }";
    let first = admin.ask(query, json!({})).await["users"].clone();
    let emails = |page: &Value| page["nodes"].as_array().unwrap().iter().map(|user| user["email"].clone()).collect::<Vec<_>>();
    assert_eq!(first["totalCount"], 4);
    assert_eq!(emails(&first), ["ada@example.com", "admin@example.com", "editor@example.com"]);
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let second = admin.ask(query, json!({ "after": first["pageInfo"]["endCursor"] })).await["users"].clone();
    assert_eq!(emails(&second), ["viewer@example.com"]);
    assert_eq!((&second["pageInfo"]["hasNextPage"], &second["pageInfo"]["hasPreviousPage"]), (&json!(false), &json!(true)));
    let last = admin.ask("{ users(last: 1) { nodes { email } } }", json!({})).await["users"].clone();
    assert_eq!(emails(&last), ["viewer@example.com"]);
}

fn ada() -> Value {
    json!({ "email": "Ada@Example.com", "name": "Ada", "password": PASSWORD, "role": "EDITOR" })
}

async fn set_role(client: &Client, id: &Value, role: &str) -> Answer {
    client.mutate("setRole", json!({ "id": id, "role": role }), USER).await
}

/// The id of the user with this role.
async fn id_of(app: &TestApp, role: Role) -> Value {
    app.client(role).await.ask("{ me { user { id } } }", json!({})).await["me"]["user"]["id"].clone()
}
