//! The bytes of a connection on their way to hyper, watched for two things that hyper does not tell.
//!
//! - *HTTP/1*: how many `Content-Length` lines have come. hyper drops that line from a head that has
//!   `Transfer-Encoding` too, so that nobody behind it can see that the head had two framings
//!   (RFC 9112 §6.3). [`framing`](super::framing) compares.
//! - *HTTP/2*: frames that bring no request, such as PING and SETTINGS. h2 answers any number of them. Who sends
//!   more than any honest peer is to be let go.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The start of a line that gives a body's length.
const CONTENT_LENGTH: &[u8; 15] = b"content-length:";

/// How many frames without a request may come at once.
const BURST: u32 = 1000;

/// How many more may come each second. grpcio with a keepalive of 100 ms sends ten.
const EACH_SECOND: u32 = 100;

/// How many more a request brings along: window updates and probes of the bandwidth.
const EACH_REQUEST: u32 = 4;

/// How many bytes we send for one more: who reads a stream gives windows back.
const BYTES_EACH: u64 = 128;

/// What has come in on a connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    content_lengths: AtomicU64,
    flood: Notify,
}

impl Seen {
    /// How many `Content-Length` lines have come, of the requests that have been parsed and perhaps of later ones.
    pub(super) fn content_lengths(&self) -> u64 {
        self.content_lengths.load(Ordering::Relaxed)
    }

    /// Resolves when the peer has sent too many frames that bring no request. Nothing more is read then.
    pub(super) async fn flood(&self) {
        self.flood.notified().await;
    }
}

pin_project! {
    /// A stream whose incoming bytes are watched.
    pub(super) struct Inbound<IO> {
        #[pin]
        io: IO,
        protocol: Protocol,
        written: u64,
        seen: Arc<Seen>,
    }
}

impl<IO> Inbound<IO> {
    pub(super) fn new(io: IO, seen: Arc<Seen>) -> Self {
        Self { io, protocol: Protocol::Unknown { matched: 0 }, written: 0, seen }
    }
}

enum Protocol {
    /// So much of the preface has come, and nothing else.
    Unknown {
        matched: usize,
    },
    Http1(Lines),
    Http2(Frames),
    /// The peer has sent too much; nothing more is read.
    Flooded,
}

impl Protocol {
    /// Takes note of bytes that came in. `written` is how many went out since the last time.
    fn watch(&mut self, mut bytes: &[u8], written: &mut u64, seen: &Seen) {
        while let Self::Unknown { matched } = self {
            let Some((first, rest)) = bytes.split_first() else { return };
            if *first != PREFACE[*matched] {
                let mut lines = Lines::default();
                let lengths = lines.count(&PREFACE[..*matched]);
                seen.content_lengths.fetch_add(lengths, Ordering::Relaxed);
                *self = Self::Http1(lines);
                break;
            }
            *matched += 1;
            bytes = rest;
            if *matched == PREFACE.len() {
                *self = Self::Http2(Frames::new());
            }
        }
        match self {
            Self::Http1(lines) => {
                let lengths = lines.count(bytes);
                if lengths > 0 {
                    seen.content_lengths.fetch_add(lengths, Ordering::Relaxed);
                }
            }
            Self::Http2(frames) => {
                if frames.are_too_many(bytes, written) {
                    *self = Self::Flooded;
                    seen.flood.notify_one();
                }
            }
            Self::Unknown { .. } | Self::Flooded => {}
        }
    }
}

/// Where in a line of HTTP/1 the last byte was.
#[derive(Default)]
struct Lines {
    /// So many bytes of the line are those of [`CONTENT_LENGTH`]; none if it is another line. The first line of a
    /// connection is a request line.
    matched: Option<usize>,
}

impl Lines {
    /// How many lines of these bytes give a length.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut lengths = 0;
        loop {
            let Some(matched) = self.matched else {
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                    return lengths;
                };
                bytes = &bytes[end + 1..];
                self.matched = Some(0);
                continue;
            };
            let Some((first, rest)) = bytes.split_first() else { return lengths };
            if !first.eq_ignore_ascii_case(&CONTENT_LENGTH[matched]) {
                // Looked at again: it may be the end of the line.
                self.matched = None;
                continue;
            }
            bytes = rest;
            self.matched = Some(matched + 1);
            if matched + 1 == CONTENT_LENGTH.len() {
                lengths += 1;
                self.matched = None;
            }
        }
    }
}

/// The frames of HTTP/2 (RFC 9113 §4.1), as far as their heads tell.
struct Frames {
    head: [u8; 9],
    /// How much of the head has come.
    have: usize,
    /// How much of the payload has not.
    payload: usize,
    allowed: u32,
    allowed_at: Instant,
}

impl Frames {
    fn new() -> Self {
        Self { head: [0; 9], have: 0, payload: 0, allowed: BURST, allowed_at: Instant::now() }
    }

    /// Whether these bytes bring more frames without a request than a peer may send.
    fn are_too_many(&mut self, mut bytes: &[u8], written: &mut u64) -> bool {
        loop {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            bytes = &bytes[skipped..];
            let more = (self.head.len() - self.have).min(bytes.len());
            if more == 0 {
                return false;
            }
            self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have == self.head.len() {
                self.have = 0;
                if !self.allows_frame(written) {
                    return true;
                }
            }
        }
    }

    fn allows_frame(&mut self, written: &mut u64) -> bool {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const END_STREAM: u8 = 1;
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        // `usize` has 32 bits at least on every system that tokio runs on.
        self.payload = length as usize;
        match kind {
            HEADERS => {
                self.allowed = self.allowed.saturating_add(EACH_REQUEST).min(BURST);
                return true;
            }
            DATA if length > 0 || flags & END_STREAM != 0 => return true,
            // h2 has a bound of its own for these.
            RST_STREAM => return true,
            _ => {}
        }
        if self.allowed == 0 {
            // The clock is read here only: an honest peer hardly ever comes to this.
            let now = Instant::now();
            let since = (now - self.allowed_at).min(Duration::from_secs(3600));
            let earned = since.as_secs_f64() * f64::from(EACH_SECOND);
            let sent = u32::try_from(*written / BYTES_EACH).unwrap_or(BURST);
            self.allowed = (earned as u32).saturating_add(sent).min(BURST);
            self.allowed_at = now;
            *written = 0;
        }
        match self.allowed.checked_sub(1) {
            Some(left) => {
                self.allowed = left;
                true
            }
            None => false,
        }
    }
}

impl<IO: AsyncRead> AsyncRead for Inbound<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if matches!(this.protocol, Protocol::Flooded) {
            // Without a wake-up: the connection is about to be dropped.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = this.io.poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            this.protocol.watch(&buf.filled()[before..], this.written, this.seen);
        }
        read
    }
}

impl<IO: AsyncWrite> AsyncWrite for Inbound<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let wrote = this.io.poll_write(cx, buf);
        count(&wrote, this.written);
        wrote
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let wrote = this.io.poll_write_vectored(cx, bufs);
        count(&wrote, this.written);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

fn count(wrote: &Poll<io::Result<usize>>, written: &mut u64) {
    if let Poll::Ready(Ok(wrote)) = wrote {
        *written = written.saturating_add(*wrote as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths(parts: &[&[u8]]) -> u64 {
        let seen = Seen::default();
        let mut protocol = Protocol::Unknown { matched: 0 };
        for part in parts {
            protocol.watch(part, &mut 0, &seen);
        }
        seen.content_lengths()
    }

    proptest! {
        #[test]
        fn lengths_are_counted_wherever_the_bytes_are_parted(cuts in proptest::collection::vec(0_usize..200, 0..20)) {
            let text: &[u8] = b"PRI / HTTP/1.1\r\nHost: x\r\ncontent-length: 1\r\n\r\naPOST / HTTP/1.1\r\n\
                Content-Lengthy: 3\r\nX: content-length: 3\r\nCONTENT-LENGTH:\r\ncontent-\r\n\r\n";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lengths(&parts), 2);
        }
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_past_what_an_honest_peer_sends_are_a_flood() {
        let ping = frame(6, 0, &[0; 8]);
        let mut frames = Frames::new();
        for _ in 0..BURST {
            assert!(!frames.are_too_many(&ping, &mut 0));
        }
        assert!(frames.are_too_many(&ping, &mut 0));

        for kind in [2, 4, 8, 9, 200] {
            let many = frame(kind, 0, b"12345").repeat(BURST as usize + 1);
            assert!(Frames::new().are_too_many(&many, &mut 0), "frames of type {kind}");
        }
        let empty = frame(0, 0, b"").repeat(BURST as usize + 1);
        assert!(Frames::new().are_too_many(&empty, &mut 0), "empty DATA");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_every_tenth_of_a_second_and_requests_with_their_windows_go_on_for_ever() {
        let ping = frame(6, 0, &[0; 8]);
        let mut frames = Frames::new();
        for _ in 0..20_000 {
            tokio::time::advance(Duration::from_millis(100)).await;
            assert!(!frames.are_too_many(&ping, &mut 0));
        }
        let call = [frame(1, 4, b"head"), frame(0, 0, b"body"), frame(0, 1, b"")].concat();
        let windows = frame(8, 0, &[0; 4]).repeat(3);
        let mut bytes = [call, windows].concat().repeat(5000);
        bytes.push(0);
        let mut frames = Frames::new();
        assert!(bytes.chunks(7).all(|part| !frames.are_too_many(part, &mut 0)));
        // Who reads a long stream gives windows back.
        let (mut frames, mut written) = (Frames::new(), 0);
        for _ in 0..5000 {
            written += 256;
            assert!(!frames.are_too_many(&frame(8, 0, &[0; 4]).repeat(2), &mut written));
        }
    }
}
