//! How webhooks travel: to whom they are addressed and nobody else.

use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use mdl::actor::Role;
use mdl_tests::servers::WorkerProcess;
use mdl_tests::{Receiver, TestApp};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::webhooks::{endpoint, tell, until, until_state};

/// What was told to a receiver whose certificate nobody has signed but itself.
fn self_signed() -> (String, Arc<Mutex<Vec<u8>>>) {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let told: Arc<Mutex<Vec<u8>>> = Arc::default();
    let heard = told.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), connection.unwrap());
            let mut bytes = [0; 4_096];
            // A client that does not trust the certificate ends it here.
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                heard.lock().unwrap().extend(&bytes[..count]);
            }
        }
    });
    (url, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_cannot_prove_who_it_is_is_told_nothing() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let (url, told) = self_signed();
    endpoint(&admin, &url).await;
    tell(&app, 1, "metric.created", json!({ "key": "METRIC-1" })).await;
    let all = until(&admin, "the attempt has failed", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    let attempt = &all[0]["attempts"][0];
    assert_eq!((&attempt["errorClass"], &attempt["status"]), (&json!("CONNECT"), &json!(null)), "{attempt}");
    assert!(attempt["error"].as_str().unwrap().contains("invalid peer certificate"), "{attempt}");
    assert_eq!(all[0]["state"], "PENDING", "it may have another certificate by then");
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_not_asked() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (receiver, proxy) = (Receiver::start().await, Receiver::start().await);
    endpoint(&admin, &receiver.url).await;
    let mut environment = app.environment();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let proxy = proxy.url.strip_suffix("/hook").unwrap();
        environment.extend([(name.to_owned(), proxy.to_owned()), (name.to_lowercase(), proxy.to_owned())]);
    }
    environment.extend(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), String::new())));
    let _worker = WorkerProcess::start_with(&environment);
    tell(&app, 1, "metric.created", json!({ "key": "METRIC-1" })).await;
    until_state(&admin, 1, "DELIVERED").await;
    assert_eq!((receiver.received().len(), proxy.received().len()), (1, 0));
}
