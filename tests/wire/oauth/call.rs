//! A small HTTP/1.1 client that sends what it is told to, byte for byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::oauth::contract::assert_described;
use crate::support::TestServer;

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.map(|line| line.split_once(": ").expect("a header"));
        Self {
            status: status.parse().expect("a status"),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    /// The value of a header that stands there once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} stands twice: {:?}", self.headers);
        value.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    /// A member of the JSON body that is text.
    pub fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned()
    }

    /// Without what differs from one answer to the next.
    pub fn without_id(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "x-request-id" && name != "date");
        self
    }
}

/// Holds an error against what it should be, and against what every error is.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, error: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["error"].as_str()), (status, Some(error)), "{answer:?}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(2), "{answer:?}");
    let description = body["error_description"].as_str().expect("every error says more");
    // RFC 6749 §5.2.
    let allowed = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
    assert!(!description.is_empty() && description.chars().all(allowed), "{description}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("pragma"), Some("no-cache"), "{answer:?}");
    let challenge = (status == 401).then_some("Basic realm=\"countersign\"");
    assert_eq!(answer.header("www-authenticate"), challenge, "{answer:?}");
    let retry_after = answer.header("retry-after").map(|text| text.parse::<u64>());
    assert_eq!(retry_after.is_some(), status == 429 || status == 503, "{answer:?}");
    assert!(retry_after.is_none_or(|seconds| seconds.is_ok_and(|seconds| seconds > 0)));
}

/// Sends bytes as they are, and gives what comes back until the server closes.
pub async fn send(server: &TestServer, request: &[u8]) -> Answer {
    let stream = TcpStream::connect(server.address()).await.expect("it listens");
    send_over(stream, request).await
}

/// The same over a connection that is there.
pub async fn send_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Answer {
    // A server that has read enough closes: what it said is there all the same.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Answer::parse(&String::from_utf8(answer).expect("an answer in text"))
}

/// A request without a body.
pub async fn request(server: &TestServer, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
    );
    let answer = send(server, request.as_bytes()).await;
    assert_described(method, path, &answer);
    answer
}

/// A form, posted with more headers, each of which ends in CRLF.
pub async fn post(server: &TestServer, path: &str, headers: &str, form: &str) -> Answer {
    let headers = format!("content-type: application/x-www-form-urlencoded\r\n{headers}");
    post_as(server, path, &headers, form.as_bytes()).await
}

/// Any body, posted with these headers.
pub async fn post_as(server: &TestServer, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len(),
    );
    let answer = send(server, &[head.as_bytes(), body].concat()).await;
    assert_described("POST", path, &answer);
    answer
}

/// The header of HTTP Basic.
pub fn basic(client: &str, secret: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{client}:{secret}")))
}

/// A client that may call `inventory`, and its secret.
pub async fn order(server: &TestServer) -> String {
    server.register("order", &[("inventory", &["stock:read", "stock:write"])], &[]).await
}

/// A token for what follows `grant_type` in the form.
pub async fn token(server: &TestServer, headers: &str, more: &str) -> Answer {
    let form = format!("grant_type=client_credentials{more}");
    post(server, "/oauth/token", headers, &form).await
}
