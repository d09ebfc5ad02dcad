//! `onespend health`: asks one node's health port, for scripts, and for containers that hold nothing else to ask with.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Uri, header};
use clap::Args;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::Value;

use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, Show};
use crate::config::HostPort;

/// How long all of it may take unless said otherwise. The port answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer that is read; `/metrics` is the longest.
const MAX_ANSWER_BYTES: usize = 4 << 20;
const OK: u16 = 200;
const NO: u16 = 503;
/// What hyper says of an answer that is not HTTP/1, such as an alert of TLS; its type of error is not at hand here.
const NO_HTTP: &str = "invalid HTTP version";

#[derive(Debug, Args)]
pub struct Health {
    /// What to ask, with its parameters: /livez, /readyz, /primary, "/replica?max_lag_blocks=1", /status, …; the first slash may
    /// be left out
    #[arg(value_name = "PATH", default_value = "/livez", value_parser = path)]
    path: String,
    /// The node's health port; http:// may stand before it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7802", value_parser = at)]
    at: HostPort,
}

/// What was said, with status 200.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(Value);

impl Show for Answer {
    fn text(&self) -> String {
        match &self.0 {
            Value::String(text) => text.trim_end().to_owned(),
            json => json.to_string(),
        }
    }
}

/// Why there is no answer, and what to do about it.
struct Silence {
    why: String,
    remedy: &'static str,
}

impl Silence {
    fn of(why: String) -> Self {
        let remedy = if why.contains(NO_HTTP) {
            "is this a data or control port? They answer TLS; name `health` of [listen] in the node's configuration (--at)"
        } else {
            "check that the node runs, and `health` of [listen] in its configuration (--at)"
        };
        Self { why, remedy }
    }
}

/// A path, whose first slash may be missing: some shells make something else of it.
fn path(text: &str) -> Result<String, String> {
    let has_slash = text.starts_with('/');
    let path = if has_slash { text.to_owned() } else { format!("/{text}") };
    let is_whole_url = !has_slash && text.contains("://");
    if text.is_empty() || is_whole_url || path.parse::<Uri>().is_err() {
        return Err("it must be the path of a URL, such as /primary; --at names the port".to_owned());
    }
    Ok(path)
}

/// An address, also as the beginning of a URL.
fn at(text: &str) -> Result<HostPort, String> {
    if text.starts_with("https://") {
        return Err("a health port speaks HTTP without TLS: leave https:// out".to_owned());
    }
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    if !bare.contains(':') {
        return Err("it must be the host:port of a health port, such as 10.0.0.1:7802".to_owned());
    }
    bare.parse()
}

impl Health {
    /// Asks, within `patience` if it is given.
    ///
    /// # Errors
    /// It says no, there is no such question, or it says nothing.
    pub async fn run(self, output: Output, patience: Option<Duration>) -> Result<(), Failure> {
        let patience = patience.unwrap_or(PATIENCE);
        let answer = tokio::time::timeout(patience, self.ask()).await;
        let late = || Silence::of(format!("nothing within {} ms", patience.as_millis()));
        let answer = answer.unwrap_or_else(|_| Err(late()));
        match answer {
            Ok((OK, body)) => output.show(&Answer(body)),
            Ok((status, body)) => Err(self.refusal(status, &body)),
            Err(Silence { why, remedy }) => {
                let failure = Failure::new(Exit::Unreachable, format!("the health port {} does not answer", self.at));
                Err(failure.with("last", why).remedy(remedy))
            }
        }
    }

    /// The status and the body, which is JSON everywhere but at `/metrics`.
    async fn ask(&self) -> Result<(u16, Value), Silence> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(format!("http://{}{}", self.at, self.path))
            .header(header::CONNECTION, "close")
            .body(Body::empty())
            .map_err(|error| Silence::of(error.to_string()))?;
        let silence = |error: &dyn std::error::Error| Silence::of(chain(error));
        let answer = client.request(request).await.map_err(|error| silence(&error))?;
        let status = answer.status().as_u16();
        let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await.map_err(|error| silence(&error))?;
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
    }

    fn refusal(&self, status: u16, body: &Value) -> Failure {
        let word = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let exit = if status == NO { Exit::Refused } else { Exit::Usage };
        let mut failure = Failure::new(exit, format!("{} answers {status}", self.path));
        for name in ["reason", "message"] {
            failure = word(name).into_iter().fold(failure, |failure, value| failure.with(name, value));
        }
        if status == NO {
            failure
        } else {
            failure.remedy("ask what the page \"Health endpoints\" of the manual lists")
        }
    }
}

/// An error with its causes: hyper keeps what matters in them.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::output::Format;
    use super::*;

    const QUIET: Output = Output { format: Format::Json };

    /// Answers one request with this status and body, and says what was asked for.
    async fn server(status: &'static str, body: &'static str) -> (HostPort, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string().parse().unwrap();
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4_096];
            let read = socket.read(&mut head).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned()
        });
        (at, asked)
    }

    #[tokio::test]
    async fn yes_is_done_and_no_says_why() {
        let (at, asked) = server("200 OK", "{\"reason\":null}").await;
        let health = Health { path: "/replica?max_lag_blocks=1".to_owned(), at };
        assert_eq!(health.run(QUIET, None).await, Ok(()));
        assert_eq!(asked.await.unwrap(), "GET /replica?max_lag_blocks=1 HTTP/1.1");

        let (at, _asked) = server("503 Service Unavailable", "{\"reason\":\"NO_LEADER\"}").await;
        let failure = Health { path: "/readyz".to_owned(), at }.run(QUIET, None).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.text(), "onespend: /readyz answers 503\n  reason: NO_LEADER\n");

        let (at, _asked) = server("404 Not Found", "{\"reason\":\"UNKNOWN_PATH\",\"message\":\"no\"}").await;
        let failure = Health { path: "/nothing".to_owned(), at }.run(QUIET, None).await.unwrap_err();
        assert_eq!((failure.exit, failure.details.len()), (Exit::Usage, 2));
    }

    #[tokio::test]
    async fn silence_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: HostPort = listener.local_addr().unwrap().to_string().parse().unwrap();
        let ask = |at: HostPort| Health { path: "/livez".to_owned(), at };
        let mute = ask(at.clone()).run(QUIET, Some(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(mute.exit, Exit::Unreachable);
        drop(listener);
        let gone = ask(at).run(QUIET, None).await.unwrap_err();
        assert_eq!(gone.exit, Exit::Unreachable);
        assert!(gone.text().contains("does not answer"), "{}", gone.text());
    }

    /// What rustls answers to a request without TLS: a fatal alert.
    #[tokio::test]
    async fn a_port_that_answers_tls_is_asked_for_no_health() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: HostPort = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let read = socket.read(&mut [0; 4_096]).await.unwrap();
            assert!(read > 0);
            socket.write_all(&[0x15, 3, 3, 0, 2, 2, 10]).await.unwrap();
        });
        let failure = Health { path: "/livez".to_owned(), at }.run(QUIET, None).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.text().contains("is this a data or control port?"), "{}", failure.text());
    }

    #[test]
    fn the_port_may_be_written_as_a_url_and_is_never_called_a_data_port() {
        for text in ["127.0.0.1:15949", "http://127.0.0.1:15949", "http://127.0.0.1:15949/"] {
            assert_eq!(at(text).map(|at| at.to_string()), Ok("127.0.0.1:15949".to_owned()), "{text}");
        }
        assert!(at("15949").is_err_and(|why| why.contains("10.0.0.1:7802")));
        assert!(at("https://127.0.0.1:15949").is_err_and(|why| why.contains("without TLS")));
        for text in ["", "http://", "http://127.0.0.1:1/primary", "http://127.0.0.1:1//", "::1:80"] {
            assert!(at(text).is_err_and(|why| !why.contains("7800")), "{text}");
        }
    }

    #[test]
    fn a_path_is_asked_with_its_slash_and_text_stays_text() {
        for text in ["/livez", "livez"] {
            assert_eq!(path(text), Ok("/livez".to_owned()), "{text}");
        }
        for text in ["", "a b", "http://127.0.0.1:7802/livez"] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(Answer(Value::String("a 1\nb 2\n".to_owned())).text(), "a 1\nb 2");
        assert_eq!(Answer(serde_json::json!({ "reason": null })).text(), "{\"reason\":null}");
    }
}
