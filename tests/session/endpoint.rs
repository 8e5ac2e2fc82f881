//! An HTTP server on a real socket. It answers as the test tells it, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

#[derive(Clone)]
pub struct FakeEndpoint {
    address: std::net::SocketAddr,
    /// Status and head lines, and body; `None` means that it never answers.
    answer: Arc<Mutex<Option<(String, String)>>>,
    seen: watch::Receiver<Vec<String>>,
}

impl FakeEndpoint {
    pub async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (requests, seen) = watch::channel(Vec::new());
        let answer = Arc::<Mutex<Option<(String, String)>>>::default();
        let (requests, answers) = (Arc::new(requests), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, answers, tls) =
                    (Arc::clone(&requests), Arc::clone(&answers), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &requests, &answers).await;
                            }
                        }
                        None => serve(stream, &requests, &answers).await,
                    }
                });
            }
        });
        Self { address, answer, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers with this status, such as `200 OK`, and body from now on.
    pub fn answers(&self, status: &str, body: &str) {
        let answer = (status.to_owned(), body.to_owned());
        *self.answer.lock().expect("no thread panicked with the lock") = Some(answer);
    }

    pub fn answers_nothing(&self) {
        *self.answer.lock().expect("no thread panicked with the lock") = None;
    }

    /// The requests so far, head and body.
    pub fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    /// Waits until it has seen so many requests.
    pub async fn until_seen(&self, count: usize) {
        let mut seen = self.seen.clone();
        let enough = seen.wait_for(|seen| seen.len() >= count);
        drop(
            tokio::time::timeout(Duration::from_secs(20), enough).await.expect("the requests come"),
        );
    }

    /// Lets time pass until the client has asked twice more. By then it has read the answer to the
    /// first of these.
    pub async fn pass_until_read(&self) {
        let enough = self.seen().len() + 2;
        let mut seen = self.seen.clone();
        for _ in 0..1000 {
            let soon = seen.wait_for(|seen| seen.len() >= enough);
            if tokio::time::timeout(Duration::from_millis(20), soon).await.is_ok() {
                return;
            }
            // Less than any client waits for an answer, so that none gives up.
            pass(Duration::from_secs(4)).await;
        }
        panic!("nobody asks");
    }
}

/// Lets time pass although sockets are real: tokio's clock is paused only while it is moved, so that
/// the network can keep up.
pub async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &watch::Sender<Vec<String>>,
    answers: &Mutex<Option<(String, String)>>,
) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let answer = answers.lock().expect("no thread panicked with the lock").clone();
    requests.send_modify(|seen| seen.push(String::from_utf8_lossy(&request).into_owned()));
    let Some((status, body)) = answer else { return std::future::pending().await };
    let len = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}");
    // The client may have gone away.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let len = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    body.len() >= len.map_or(0, |len| len.trim().parse().expect("a number"))
}
