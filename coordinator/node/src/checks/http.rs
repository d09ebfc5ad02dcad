//! Asks a URL for its status. Plain HTTP/1.1, a connection each time, no redirects: what is watched is this answer.

use axum::body::Body;
use axum::http::{Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::resolver::Resolver;
use super::{Look, chain};

/// One URL.
#[derive(Debug)]
pub(super) struct Url {
    client: Client<HttpConnector<Resolver>, Body>,
    address: String,
    status: u16,
}

impl Url {
    /// `status` is the one that it must answer with.
    pub(super) fn new(url: String, status: u16, resolver: Resolver) -> Self {
        let connector = HttpConnector::new_with_resolver(resolver);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client, address: url, status }
    }

    /// Asks once; the caller bounds the time. The body is not read.
    pub(super) async fn look(&self) -> Look {
        let request = Request::get(&self.address)
            .header(header::USER_AGENT, concat!("onespend/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Body::empty());
        let request = match request {
            Ok(request) => request,
            Err(error) => return Look::bad(&error.to_string()),
        };
        match self.client.request(request).await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                Look { good: status == self.status, value: format!("status {status}") }
            }
            Err(error) => Look::bad(&chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with this text.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = [0; 4_096];
                let _ = socket.read(&mut head).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}/livez?x=1")
    }

    async fn look(url: String, status: u16) -> Look {
        Url::new(url, status, Resolver::new()).look().await
    }

    #[tokio::test]
    async fn the_status_decides() {
        let ok = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(look(ok.clone(), 200).await, Look::good("status 200"));
        assert_eq!(look(ok.clone(), 204).await, Look::bad("status 200"));
        let by_name = ok.replace("127.0.0.1", "localhost");
        assert_eq!(look(by_name, 200).await, Look::good("status 200"));
        let moved = server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(look(moved, 302).await, Look::good("status 302"), "it is not followed");
    }

    #[tokio::test]
    async fn what_does_not_answer_is_bad_and_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let refused = look(gone, 200).await;
        assert!(!refused.good && !refused.value.is_empty(), "{refused:?}");
        let nonsense = server("nonsense\r\n\r\n").await;
        assert!(!look(nonsense, 200).await.good);
    }
}
