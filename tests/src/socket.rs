//! A websocket that speaks `graphql-transport-ws`, message by message.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::PATIENCE;

pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// How the other side ended it.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a close frame.
    Closed(u16, String),
    /// Without.
    Lost,
}

impl Socket {
    /// Connects, with further headers; the status if it is refused.
    pub async fn open(base: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let url = format!("{}/graphql", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header"));
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(_) => Err(0),
        }
    }

    /// Connects and says who it is.
    pub async fn connect(base: &str, credential: &str) -> Self {
        let mut socket = Self::open(base, &[("sec-websocket-protocol", "graphql-transport-ws")]).await.expect("a websocket");
        socket.init(credential).await;
        assert_eq!(socket.next().await.expect("an answer")["type"], "connection_ack");
        socket
    }

    pub async fn init(&mut self, credential: &str) {
        let payload = json!({ "Authorization": format!("Bearer {credential}") });
        self.send(&json!({ "type": "connection_init", "payload": payload })).await;
    }

    pub async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.send(&json!({ "id": id, "type": "subscribe", "payload": payload })).await;
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        // Of one that was closed, the next read tells.
        let _sent = self.0.send(Message::text(text.to_owned())).await;
    }

    /// The next message that is no ping.
    pub async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    if message["type"] != "ping" {
                        return Ok(message);
                    }
                    self.send(&json!({ "type": "pong" })).await;
                }
                Some(Ok(Message::Close(Some(frame)))) => return Err(Ended::Closed(frame.code.into(), frame.reason.to_string())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_) | Err(_)) | None => return Err(Ended::Lost),
            }
        }
    }

    /// Closes it, and gives the code and reason of the answer, after which the connection must end without an error.
    pub async fn close(&mut self, code: u16, reason: &str) -> (u16, String) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.0.close(Some(frame)).await.expect("it is open");
        let answer = self.closed().await;
        let end = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an end in time");
        assert!(end.is_none(), "{end:?}");
        answer
    }

    /// The code and reason it is closed with; messages before are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(Ended::Closed(code, reason)) => return (code, reason),
                Err(Ended::Lost) => panic!("lost without a close frame"),
            }
        }
    }
}
