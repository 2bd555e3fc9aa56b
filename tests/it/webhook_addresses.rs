//! Where webhooks are not sent to, however the address is written.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use mdl::outbound::{Guard, Lookup, refused};

/// Counts the connections to a port of this machine.
struct Listener {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Listener {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What a webhook's attempt does: look, and then ask. Whether it was refused.
async fn is_refused(guard: &Guard, url: &str) -> bool {
    let url = url.parse().unwrap();
    if guard.check(&url).is_err() {
        return true;
    }
    let client = guard.client(Duration::from_secs(2)).unwrap();
    let error = client.post(url).body("{}").send().await.unwrap_err();
    refused(&error).is_some()
}

/// Answers with these addresses, one set after the other; the last one from then on.
fn answers(sets: &[&[&str]]) -> Lookup {
    let sets: Vec<Vec<IpAddr>> = sets.iter().map(|set| set.iter().map(|text| text.parse().unwrap()).collect()).collect();
    let asked = AtomicUsize::new(0);
    Arc::new(move |_| {
        let at = asked.fetch_add(1, Ordering::SeqCst).min(sets.len() - 1);
        let answer = sets[at].clone();
        async move { Ok(answer) }.boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_inner_address_makes_a_connection() {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let listener = Listener::start().await;
    let guard = Guard::new(&[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "localhost",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "100.100.100.200",
        "168.63.129.16",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    ] {
        let url = format!("https://{host}:{}/", listener.port);
        assert!(is_refused(&guard, &url).await, "{url}");
    }
    assert!(is_refused(&guard, &format!("http://127.0.0.1:{}/", listener.port)).await);
    assert_eq!(listener.connections(), 0);

    // The listener would have seen it.
    let open = Guard::new(&["127.0.0.0/8".parse().unwrap()]);
    assert!(!is_refused(&open, &format!("https://127.0.0.1:{}/", listener.port)).await);
    assert_eq!(listener.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_checked_where_it_is_connected_to() {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let listener = Listener::start().await;
    let url = format!("https://changing.example:{}/", listener.port);
    for inside in ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "64:ff9b::7f00:1", "fe80::1", "10.0.0.1"] {
        // It is public whenever somebody only looks.
        let lookup = answers(&[&["93.184.216.34"], &[inside]]);
        let first = lookup("changing.example".to_owned()).await.unwrap();
        assert!(first.iter().all(|address| mdl::outbound::not_public(*address).is_none()));
        assert!(is_refused(&Guard::new(&[]).with_lookup(lookup), &url).await, "{inside}");
    }
    let both = answers(&[&["93.184.216.34", "127.0.0.1"]]);
    assert!(is_refused(&Guard::new(&[]).with_lookup(both), &url).await, "one of its addresses is inside");
    assert_eq!(listener.connections(), 0);

    let port = listener.port;
    let allowed = format!("changing.example:{port}").parse().unwrap();
    let open = Guard::new(&[allowed]).with_lookup(answers(&[&["127.0.0.1"]]));
    assert!(!is_refused(&open, &url).await);
    assert_eq!(listener.connections(), 1, "the listener would have seen it");
    assert!(is_refused(&open, &format!("https://changing.example:{}/", port ^ 1)).await, "that port is not allowed");
}
