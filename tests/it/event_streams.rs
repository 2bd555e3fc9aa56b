//! Subscriptions as event streams, and what both transports have in common.

use std::future::ready;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use mdl::actor::Role;
use mdl_tests::servers::ApiProcess;
use mdl_tests::socket::{Ended, Socket};
use mdl_tests::{Client, PASSWORD, PATIENCE, TestApp, clients, email, eventually};
use serde_json::{Value, json};

use crate::subscriptions::{BURST, CHANGES, PROTOCOL, burst, change_cursor, code, key, started, told};

/// An event stream, as lines.
async fn stream(
    client: &Client,
    query: &str,
    variables: Value,
    last: Option<&str>,
) -> impl futures::Stream<Item = String> + Unpin + use<> {
    let lines =
        open(client, query, variables, last).await.bytes_stream().map_err(std::io::Error::other).into_async_read().lines();
    lines.filter_map(|line| ready(line.ok())).boxed()
}

/// The beginning of an event stream.
async fn open(client: &Client, query: &str, variables: Value, last: Option<&str>) -> reqwest::Response {
    let body = json!({ "query": query, "variables": variables });
    let mut request = client.http.post(format!("{}/graphql", client.base)).json(&body).header("accept", "text/event-stream");
    request = request.bearer_auth(client.credential.as_ref().unwrap());
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    response
}

/// The next line of an event stream that begins with this.
async fn line(stream: &mut (impl futures::Stream<Item = String> + Unpin), start: &str) -> String {
    let found = async {
        while let Some(line) = stream.next().await {
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
        panic!("the stream ended before {start}");
    };
    tokio::time::timeout(PATIENCE, found).await.expect("a line in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_goes_on_after_the_last_event() {
    let (app, editor) = started(&[]).await;
    let mut events = stream(&editor, CHANGES, json!({ "after": change_cursor(0) }), None).await;
    assert_eq!(line(&mut events, "event:").await, "next");
    let first: Value = serde_json::from_str(&line(&mut events, "data:").await).unwrap();
    assert_eq!(first["data"]["catalogChanged"]["sequence"], 1);
    let id = line(&mut events, "id:").await;
    assert_eq!(id, first["data"]["catalogChanged"]["cursor"].as_str().unwrap());
    drop(events);
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    // The variables still say from where it began.
    let mut events = stream(&editor, CHANGES, json!({ "after": change_cursor(0) }), Some(&id)).await;
    let next: Value = serde_json::from_str(&line(&mut events, "data:").await).unwrap();
    assert_eq!(next["data"]["catalogChanged"]["key"], "M");

    let mut query = stream(&editor, "{ me { role } }", json!({}), None).await;
    assert_eq!(line(&mut query, "data:").await, "{\"data\":{\"me\":{\"role\":\"EDITOR\"}}}");
    assert_eq!(line(&mut query, "event:").await, "complete");
    let refused =
        app.anonymous().http.get(format!("{}/graphql?query={{me{{role}}}}", app.base)).header("accept", "text/event-stream");
    assert_eq!(refused.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_tells_all_of_an_import() {
    let (_app, editor) = started(&[]).await;
    let mut events = stream(&editor, CHANGES, json!({ "after": change_cursor(1) }), None).await;
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    let mut next = async || {
        let told: Value = serde_json::from_str(&line(&mut events, "data:").await).unwrap();
        told["data"]["catalogChanged"]["sequence"].as_i64().unwrap_or_else(|| panic!("{told}"))
    };
    assert_eq!(next().await, 2);
    burst(&editor).await;
    for sequence in 3..=BURST + 2 {
        assert_eq!(next().await, sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_any_more_is_told_and_let_go() {
    let (app, editor) = started(&[("MDL_LIVE_PING_SECONDS", "1"), ("MDL_LIVE_CONNECTIONS_PER_USER", "1")]).await;
    burst(&editor).await;
    told(&app, BURST + 2).await;
    // The same again and again, so that all of it is more than waits on the way.
    let payloads: String = (0..25).map(|i| format!("p{i}: payload ")).collect();
    let query = format!("subscription($after: String) {{ catalogChanged(after: $after) {{ sequence {payloads} }} }}");
    let unread = open(&editor, &query, json!({ "after": change_cursor(0) }), None).await;
    eventually("its place is free again", async || {
        let mut socket = Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
        socket.init(editor.credential.as_ref().unwrap()).await;
        socket.next().await.ok()
    })
    .await;
    let text = tokio::time::timeout(PATIENCE, unread.text()).await.expect("it ends").unwrap();
    assert!(text.contains("event: complete\n"), "the operation ends");
    let data = text.lines().filter_map(|line| line.strip_prefix("data:")).filter(|data| !data.trim().is_empty());
    let mut told: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let last = told.pop().unwrap();
    assert_eq!(code(&last["errors"]), "SLOW_CONSUMER", "{last}");
    let got = told.iter().map(|told| told["data"]["catalogChanged"]["sequence"].as_i64().unwrap());
    assert!((1..=told.len() as i64).eq(got), "what came before is without a gap");
    assert!((told.len() as i64) < BURST, "it is not all");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_json_as_well_gets_json() {
    let app = TestApp::start().await;
    // As urql sends it with queries and mutations.
    let accept =
        "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed";
    let answer = app.anonymous().send_with("{ __typename }", json!({}), &[("accept", accept)]).await;
    assert_eq!(answer.header("content-type"), Some("application/graphql-response+json; charset=utf-8"));
    assert_eq!(answer.data(), json!({ "__typename": "Query" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_told_when_to_come_back() {
    let app = TestApp::start_with(&[("MDL_LIVE_CONNECTIONS_PER_USER", "1")]).await;
    let viewer = app.client(Role::Viewer).await;
    let query = "subscription { catalogChanged { key } }";
    let _first = stream(&viewer, query, json!({}), None).await;
    let second = viewer.send_with(query, json!({}), &[("accept", "text/event-stream")]).await;
    assert_eq!((second.status.as_u16(), second.error_code()), (429, Some("TOO_MANY")), "{}", second.body);
    assert_eq!(second.header("retry-after"), Some("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_access_token() {
    let app = TestApp::start().await;
    let anonymous = app.anonymous();
    let input = json!({ "tenant": "acme", "email": email(Role::Editor), "password": PASSWORD });
    let signed_in = anonymous.mutate("signIn", input, "session { refreshToken }").await.payload();
    // An access token ends with its session at the latest.
    app.database.execute("UPDATE sessions SET expires_at = now() + interval '15 seconds'").await;
    let refresh = json!({ "refreshToken": signed_in["session"]["refreshToken"] });
    let refreshed = anonymous.mutate("refreshSession", refresh, "session { accessToken }").await.payload();
    let token = refreshed["session"]["accessToken"].as_str().unwrap();

    let mut socket = Socket::connect(&app.base, token).await;
    socket.subscribe("1", "subscription { catalogChanged { key } }", json!({})).await;
    let mut events = stream(&anonymous.with(token), "subscription { catalogChanged { key } }", json!({}), None).await;
    assert_eq!(socket.closed().await, (4403, "The access token has expired".to_owned()));
    let last: Value = serde_json::from_str(&line(&mut events, "data:").await).unwrap();
    assert_eq!(last["errors"][0]["message"], "The access token has expired");
    assert_eq!(code(&last["errors"]), "UNAUTHENTICATED");
    assert_eq!(line(&mut events, "event:").await, "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_sends_its_clients_elsewhere() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let key = key(&editor).await;
    let api = ApiProcess::start(&app, &[]).await;
    let mut socket = Socket::connect(&api.base(), &key).await;
    socket.subscribe("1", "subscription { catalogChanged { key } }", json!({})).await;
    let client = editor.at(&api.base()).with(key.as_str());
    let mut events = stream(&client, "subscription { catalogChanged { key } }", json!({}), None).await;
    api.terminate();
    assert_eq!(socket.next().await, Err(Ended::Closed(1001, "The server stops; connect again".to_owned())));
    while let Some(line) = events.next().await {
        assert!(!line.starts_with("event"), "no end of the operation is told: {line}");
    }
    assert!(api.ended_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_keeps_its_place_among_the_connections() {
    let app = TestApp::start().await;
    let key = key(&app.client(Role::Editor).await).await;
    let api = ApiProcess::start(&app, &[("MDL_MAX_CONNECTIONS", "1")]).await;
    let health = format!("{}/health", api.base());
    let open = async || {
        let mut socket = Socket::open(&api.base(), &[PROTOCOL]).await.ok()?;
        socket.init(&key).await;
        socket.next().await.ok().map(|_| socket)
    };
    let mut socket = eventually("the connection of before has ended", open).await;
    assert!(reqwest::get(&health).await.is_err(), "there is no other place");
    socket.subscribe("1", "{ me { role } }", json!({})).await;
    assert_eq!(socket.next().await.unwrap()["payload"], json!({ "data": { "me": { "role": "EDITOR" } } }));
    drop(socket);
    eventually("the place is free again", async || reqwest::get(&health).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_nothing_for_long_still_listens() {
    let (app, editor) = started(&[]).await;
    let key = key(&editor).await;
    let api = ApiProcess::start(&app, &[("MDL_WRITE_TIMEOUT_SECONDS", "1"), ("MDL_LIVE_PING_SECONDS", "3")]).await;
    let mut socket = Socket::connect(&api.base(), &key).await;
    let after = json!({ "after": change_cursor(0) });
    socket.subscribe("1", CHANGES, after.clone()).await;
    assert_eq!(socket.next().await.unwrap()["payload"]["data"]["catalogChanged"]["key"], "FIRST");
    let mut events = stream(&editor.at(&api.base()).with(key.as_str()), CHANGES, after, None).await;
    line(&mut events, "data:").await;
    let silence = async {
        // The sign of life after three seconds.
        line(&mut events, ":").await;
        editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
        serde_json::from_str::<Value>(&line(&mut events, "data:").await).unwrap()
    };
    // Together, so that the websocket answers its pings meanwhile.
    let (by_socket, by_stream) = tokio::join!(socket.next(), silence);
    assert_eq!(by_socket.unwrap()["payload"]["data"]["catalogChanged"]["key"], "M");
    assert_eq!(by_stream["data"]["catalogChanged"]["key"], "M");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_npm_hear_of_a_change() {
    if clients::folder().is_none() {
        return;
    }
    let (app, editor) = started(&[]).await;
    let token = editor.credential.clone().unwrap();
    let http = format!("{}/graphql", app.base);
    let query = format!("subscription {{ catalogChanged(after: \"{}\") {{ sequence kind key }} }}", change_cursor(0));
    for (script, url) in [("subscribe-ws.js", http.replacen("http", "ws", 1)), ("subscribe-sse.js", http.clone())] {
        let before = app.database.number("SELECT max(last_sequence) FROM event_streams").await;
        let count = (before + 1).to_string();
        let arguments = [url.as_str(), &token, &count];
        let listening = clients::run(script, &arguments, &query);
        let changing = editor.write("createMetric", json!({ "key": script, "name": script }));
        let (told, _) = tokio::join!(listening, changing);
        let told = told.as_array().unwrap();
        let last = &told.last().unwrap()["data"]["catalogChanged"];
        assert_eq!(*last, json!({ "sequence": before + 1, "kind": "metric.created", "key": script }));
        let sequences: Vec<_> =
            told.iter().map(|answer| answer["data"]["catalogChanged"]["sequence"].as_i64().unwrap()).collect();
        assert!((1..=before + 1).eq(sequences), "from the first on, without a gap");
    }
}
