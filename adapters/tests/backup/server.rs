//! An S3-compatible server on loopback, and plain HTTP past the port. It verifies no signature. It ends with its standard
//! input, so also with a test that is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Without a signature it gives nobody an object; with any it gives all.
const SIGNED: &str =
    "Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// The server.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        let script = testnet().join("s3.py");
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the server says {line:?}, and no port"));
        Self { child, port }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        assert_eq!(self.ask("PUT", &format!("/{bucket}"), b"").0, 200);
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = self.ask("GET", path, b"");
        assert_eq!(status, 200, "GET {path}: {}", String::from_utf8_lossy(&body));
        body
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        assert_eq!(self.ask("PUT", path, bytes).0, 200, "PUT {path}");
    }

    /// Begins an upload in parts past the port; its id.
    pub fn begin_upload(&self, path: &str) -> String {
        let (status, body) = self.ask("POST", &format!("{path}?uploads"), b"");
        assert_eq!(status, 200);
        between(&String::from_utf8(body).unwrap(), "UploadId").remove(0)
    }

    /// What stands between these tags of an answer, each.
    pub fn texts(&self, path: &str, tag: &str) -> Vec<String> {
        between(&String::from_utf8(self.get(path)).unwrap(), tag)
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{SIGNED}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        assert!(!head.contains("transfer-encoding: chunked"), "{head}");
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, answer.split_off(end))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn between(answer: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inner = answer.split(open.as_str()).skip(1);
    inner.map(|rest| rest.split(close.as_str()).next().unwrap().to_owned()).collect()
}

fn testnet() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("testnet"))
        .find(|at| at.is_dir())
        .unwrap()
}

fn python() -> PathBuf {
    if let Some(chosen) = std::env::var_os("ONESPEND_S3_PYTHON") {
        return PathBuf::from(chosen);
    }
    let made = Command::new(testnet().join("s3.sh")).stderr(Stdio::inherit()).output().unwrap();
    assert!(made.status.success(), "testnet/s3.sh failed: {}", made.status);
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}
