//! People sign in, stay signed in, and stop being so when they should.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use mdl::actor::Role;
use mdl::config::Config;
use mdl::ids::{SessionId, UserId};
use mdl::tokens::{Keys, generate_key_pem};
use mdl_tests::{Answer, Client, PASSWORD, TestApp, email, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

const ME: &str = "{ me { role isApiKey permissions tenant { slug } user { email } } }";
const TOKENS: &str = "session { accessToken accessTokenExpiresAt refreshToken expiresAt } user { email }";
const NEW_PASSWORD: &str = "a new password of some length";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_gives_a_session() {
    let app = TestApp::start().await;
    let answer = sign_in(&app, "acme", " Viewer@Example.COM ", PASSWORD).await;
    assert_eq!(answer.user_errors(), [""; 0]);
    let session = answer.payload()["session"].clone();
    assert_eq!(answer.payload()["user"]["email"], "viewer@example.com");
    assert!(session["accessTokenExpiresAt"].as_str() < session["expiresAt"].as_str());

    let viewer = app.anonymous().with(session["accessToken"].as_str().unwrap());
    let me = viewer.ask(ME, json!({})).await["me"].clone();
    let wanted = json!({
        "role": "VIEWER", "isApiKey": false, "permissions": ["CATALOG_READ"], "tenant": { "slug": "acme" },
        "user": { "email": "viewer@example.com" },
    });
    assert_eq!(me, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_may_be_the_default_one() {
    let app = TestApp::start().await;
    for tenant in [Value::Null, json!(""), json!(" acme ")] {
        let input = json!({ "tenant": tenant, "email": email(Role::Admin), "password": PASSWORD });
        assert_eq!(app.anonymous().mutate("signIn", input, TOKENS).await.user_errors(), [""; 0], "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_answered_alike() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let editor = id_of(&app.client(Role::Editor).await).await;
    admin.mutate("suspendUser", json!({ "id": editor }), "user { id }").await.data();
    let before = app.database.contents().await;

    let wrong = [
        ("acme", "viewer@example.com", "not the password"),
        ("acme", "nobody@example.com", PASSWORD),
        ("nowhere", "viewer@example.com", PASSWORD),
        ("Not A Slug", "viewer@example.com", PASSWORD),
        ("acme", "", PASSWORD),
        ("acme", "viewer@example.com\0", PASSWORD),
        ("acme\0", "viewer@example.com", PASSWORD),
        ("acme", "viewer@example.com", ""),
        ("acme", "editor@example.com", PASSWORD),
    ];
    let mut answers = Vec::new();
    for (tenant, email, password) in wrong {
        let answer = sign_in(&app, tenant, email, password).await;
        assert_eq!((answer.status, answer.user_errors()), (StatusCode::OK, vec![": WRONG_CREDENTIALS".to_owned()]));
        answers.push(answer.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_gives_the_next_pair() {
    let app = TestApp::start().await;
    let (first, token) = session(&app, Role::Viewer).await;
    let answer = refresh(&app, &token).await;
    assert_eq!(answer.payload()["user"]["email"], "viewer@example.com");
    let next = answer.payload()["session"].clone();
    assert_ne!(next["refreshToken"], json!(token));
    for viewer in [first, app.anonymous().with(next["accessToken"].as_str().unwrap())] {
        assert_eq!(viewer.ask(ME, json!({})).await["me"]["role"], "VIEWER");
    }
    let again = refresh(&app, next["refreshToken"].as_str().unwrap()).await;
    assert_eq!(again.payload()["session"]["expiresAt"], next["expiresAt"], "a session does not grow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_used_twice_ends_the_session() {
    let app = TestApp::start().await;
    let (thief, stolen) = session(&app, Role::Viewer).await;
    let (other_session, _) = session(&app, Role::Viewer).await;
    let latest = refresh(&app, &stolen).await.payload()["session"]["refreshToken"].as_str().unwrap().to_owned();

    assert_eq!(refresh(&app, &stolen).await.error_code(), Some("UNAUTHENTICATED"));
    assert_eq!(refresh(&app, &latest).await.error_code(), Some("UNAUTHENTICATED"));
    signed_out(&thief).await;
    let reason = app.database.text("SELECT revoked_reason FROM sessions WHERE revoked_at IS NOT NULL").await;
    assert_eq!(reason.as_deref(), Some("refresh_token_reused"));
    assert_eq!(other_session.ask(ME, json!({})).await["me"]["role"], "VIEWER", "other sessions go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_refreshes_at_once_one_wins() {
    let app = TestApp::start().await;
    let (_, token) = session(&app, Role::Viewer).await;
    let (one, other) = tokio::join!(refresh(&app, &token), refresh(&app, &token));
    let won = [&one, &other].into_iter().filter(|answer| answer.body["data"]["refreshSession"]["session"].is_object());
    assert_eq!(won.count(), 1, "{} {}", one.body, other.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_refresh_tokens_are_refused() {
    let app = TestApp::start().await;
    let (viewer, token) = session(&app, Role::Viewer).await;
    let end = if token.ends_with('A') { "B" } else { "A" };
    let other_secret = format!("{}{end}", &token[..token.len() - 1]);
    for made_up in ["", "x", "mdl_x", &other_secret, viewer.credential.as_deref().unwrap()] {
        assert_eq!(refresh(&app, made_up).await.error_code(), Some("UNAUTHENTICATED"), "{made_up}");
    }
    assert_eq!(refresh(&app, &token).await.user_errors(), [""; 0], "guesses do not end the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_session() {
    let app = TestApp::start().await;
    let (viewer, token) = session(&app, Role::Viewer).await;
    for _ in 0..2 {
        let answer = app.anonymous().mutate("signOut", json!({ "refreshToken": token }), "").await;
        assert_eq!(answer.user_errors(), [""; 0]);
    }
    assert_eq!(refresh(&app, &token).await.error_code(), Some("UNAUTHENTICATED"));
    signed_out(&viewer).await;
    let unknown = app.anonymous().mutate("signOut", json!({ "refreshToken": "what is this" }), "").await;
    assert_eq!(unknown.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_user_is_out_at_once() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (viewer, token) = session(&app, Role::Viewer).await;
    let id = id_of(&viewer).await;
    admin.mutate("suspendUser", json!({ "id": id }), "").await.data();
    signed_out(&viewer).await;
    assert_eq!(refresh(&app, &token).await.error_code(), Some("UNAUTHENTICATED"));

    admin.mutate("resumeUser", json!({ "id": id }), "").await.data();
    assert_eq!(refresh(&app, &token).await.error_code(), Some("UNAUTHENTICATED"), "sessions do not come back");
    session(&app, Role::Viewer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_the_other_sessions() {
    let app = TestApp::start().await;
    let (here, refresh_token) = session(&app, Role::Viewer).await;
    let (elsewhere, _) = session(&app, Role::Viewer).await;
    let change = async |current: &str, new: &str| {
        here.mutate("changePassword", json!({ "currentPassword": current, "newPassword": new }), "").await.user_errors()
    };

    let before = app.database.contents().await;
    assert_eq!(change("not it", NEW_PASSWORD).await, ["currentPassword: WRONG_CREDENTIALS"]);
    assert_eq!(change(PASSWORD, "short").await, ["newPassword: INVALID"]);
    assert_eq!(change(PASSWORD, &"x".repeat(201)).await, ["newPassword: TOO_LONG"]);
    assert_eq!(app.database.contents().await, before);

    assert_eq!(change(PASSWORD, NEW_PASSWORD).await, [""; 0]);
    signed_out(&elsewhere).await;
    assert_eq!(here.ask(ME, json!({})).await["me"]["role"], "VIEWER");
    assert_eq!(refresh(&app, &refresh_token).await.user_errors(), [""; 0]);
    assert_eq!(sign_in(&app, "acme", &email(Role::Viewer), PASSWORD).await.user_errors(), [": WRONG_CREDENTIALS"]);
    assert_eq!(sign_in(&app, "acme", &email(Role::Viewer), NEW_PASSWORD).await.user_errors(), [""; 0]);
    assert_eq!(change(PASSWORD, NEW_PASSWORD).await, ["currentPassword: WRONG_CREDENTIALS"], "the same call again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_what_the_client_calls_itself() {
    let app = TestApp::start().await;
    let input = json!({ "input": { "tenant": "acme", "email": email(Role::Viewer), "password": PASSWORD } });
    let query = "mutation($input: SignInInput!) { signIn(input: $input) { userErrors { code } } }";
    let agent = format!("Notebook/7 {}", "x".repeat(400));
    app.anonymous().send_with(query, input, &[("user-agent", &agent)]).await.data();
    let kept = app.database.text("SELECT user_agent FROM sessions").await.unwrap();
    assert_eq!(kept, agent[..300]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_foreign_tokens_are_refused() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), generate_key_pem()).unwrap();
    let key_file = key.path().to_str().unwrap();
    let app = TestApp::start_with(&[("MDL_SIGNING_KEY_FILE", key_file)]).await;
    let (viewer, refresh_token) = session(&app, Role::Viewer).await;
    let good = viewer.credential.clone().unwrap();
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("not a JWT: {good}") };
    let kid = jsonwebtoken::decode_header(&good).unwrap().kid;
    let read: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let id = |name: &str| -> uuid::Uuid { read[name].as_str().unwrap().parse().unwrap() };
    let issued_with = |settings: &[&str], ends_in: TimeDelta| {
        let arguments = ["test"].iter().chain(settings);
        let keys = Keys::load(&Config::from_arguments(arguments).unwrap().auth).unwrap();
        keys.issue(app.tenant.id, UserId(id("sub")), SessionId(id("sid")), Utc::now() + ends_in).unwrap().text
    };
    let (our_key, hour) = (format!("--signing-key-file={key_file}"), TimeDelta::hours(1));
    let hs256 = |secret: &[u8]| {
        let header = jsonwebtoken::Header { kid: kid.clone(), ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256) };
        jsonwebtoken::encode(&header, &read, &jsonwebtoken::EncodingKey::from_secret(secret)).unwrap()
    };
    let unsigned = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "typ": "JWT", "kid": kid }).to_string());
    let admin = URL_SAFE_NO_PAD.encode(json!({ "iss": "mdl", "aud": "mdl-api", "sub": id("sub"), "role": "admin" }).to_string());

    let accepted = viewer.with(issued_with(&[&our_key], hour));
    assert_eq!(accepted.ask(ME, json!({})).await["me"]["role"], "VIEWER", "the test can sign tokens");
    let bad = [
        ("expired", issued_with(&[&our_key], TimeDelta::seconds(-1))),
        ("of a foreign key", issued_with(&[], hour)),
        ("of another issuer", issued_with(&[&our_key, "--token-issuer=other"], hour)),
        ("for another audience", issued_with(&[&our_key, "--token-audience=other"], hour)),
        ("unsigned", format!("{unsigned}.{claims}.")),
        ("unsigned, with a signature", format!("{unsigned}.{claims}.{signature}")),
        ("signed with the public name of the key", hs256(kid.as_deref().unwrap().as_bytes())),
        ("signed with the file of the key", hs256(&std::fs::read(key.path()).unwrap())),
        ("with other claims", format!("{header}.{admin}.{signature}")),
        ("cut short", good[..good.len() - 4].to_owned()),
        ("without a signature", format!("{header}.{claims}")),
        ("a refresh token", refresh_token),
        ("no token", "garbage".to_owned()),
        ("of a thousand dots", ".".repeat(1000)),
    ];
    for (what, token) in bad {
        let answer = viewer.with(token).send(ME, json!({})).await;
        assert_eq!((answer.status, answer.error_code()), (StatusCode::UNAUTHORIZED, Some("UNAUTHENTICATED")), "a token {what}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{what}");
    }
    let nobody = app.anonymous().send(ME, json!({})).await;
    assert_eq!((nobody.status, nobody.error_code()), (StatusCode::OK, Some("UNAUTHENTICATED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_tenant_is_none_of_another() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let (_, token) = session(&app, Role::Admin).await;
    let other = app.client_of("globex", Role::Admin).await;
    assert_eq!(other.ask(ME, json!({})).await["me"]["tenant"]["slug"], "globex");
    // The password of one tenant's user does not open the other's, though the address is the same.
    let users = other.ask("{ users(last: 1) { nodes { id email } } }", json!({})).await;
    let viewer = users["users"]["nodes"][0]["id"].clone();
    other.mutate("resetPassword", json!({ "id": viewer, "password": NEW_PASSWORD }), "").await.data();
    assert_eq!(sign_in(&app, "globex", &email(Role::Viewer), PASSWORD).await.user_errors(), [": WRONG_CREDENTIALS"]);
    assert_eq!(refresh(&app, &token).await.payload()["user"]["email"], "admin@example.com");
}

async fn sign_in(app: &TestApp, tenant: &str, email: &str, password: &str) -> Answer {
    let input = json!({ "tenant": tenant, "email": email, "password": password });
    app.anonymous().mutate("signIn", input, TOKENS).await
}

async fn refresh(app: &TestApp, token: &str) -> Answer {
    app.anonymous().mutate("refreshSession", json!({ "refreshToken": token }), TOKENS).await
}

/// Signs in: a client with the access token, and the refresh token.
async fn session(app: &TestApp, role: Role) -> (Client, String) {
    let session = sign_in(app, "acme", &email(role), PASSWORD).await.payload()["session"].clone();
    let text = |name: &str| session[name].as_str().unwrap_or_else(|| panic!("no {name}: {session}")).to_owned();
    (app.anonymous().with(text("accessToken")), text("refreshToken"))
}

async fn id_of(client: &Client) -> Value {
    client.ask("{ me { user { id } } }", json!({})).await["me"]["user"]["id"].clone()
}

/// Waits until the access token is refused: every instance hears of it within a second.
async fn signed_out(client: &Client) {
    eventually("the access token is refused", async || {
        let answer = client.send(ME, json!({})).await;
        (answer.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}
