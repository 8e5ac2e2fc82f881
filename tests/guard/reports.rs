//! What operators see: lines, counts, and a guard that only reports.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use countersign_mesh::testing::START;
use countersign_mesh::token::Audiences;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tonic::Request;

use crate::support::{Rig, SERVER_STREAM, UNARY, UNDECLARED, next, reason};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps what is counted, by name and labels.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counts {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let mut labels: Vec<String> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        let name = format!("{} {}", key.name(), labels.join(" "));
        let mut cells = self.0.lock().expect("no thread panicked with the lock");
        Arc::clone(cells.entry(name.trim_end().to_owned()).or_default())
    }

    fn all(&self) -> Vec<(String, u64)> {
        let cells = self.0.lock().expect("no thread panicked with the lock");
        cells.iter().map(|(name, cell)| (name.clone(), cell.load(Ordering::SeqCst))).collect()
    }

    fn gauge(&self) -> f64 {
        let until = START + DAY;
        let name = format!("countersign_guard_report_only until={}", until.as_unix());
        let cells = self.0.lock().expect("no thread panicked with the lock");
        f64::from_bits(cells[&name].load(Ordering::SeqCst))
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

thread_local! {
    /// What was logged on this thread, which is all that a test does.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes lines for whichever test writes them. One subscriber serves all tests: with one each, a line that another
/// test is the first to come to may be switched off for all of them.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .without_time()
                .with_ansi(false)
                .with_target(false)
                .with_writer(|| Self)
                .finish();
            tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
        });
        // A test may follow another on its thread.
        LOGGED.take();
        Self
    }

    fn lines(&self) -> Vec<String> {
        let text = LOGGED.with_borrow(|logged| String::from_utf8(logged.clone()).expect("UTF-8"));
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

#[tokio::test]
async fn each_refusal_writes_one_log_line_and_counts_once() {
    let counts = Counts::default();
    let _recorder = metrics::set_default_local_recorder(&counts);
    let mut rig = Rig::new();
    let log = Log::start();
    let order = || rig.issuer.token("order").audience("echo");
    let (forged, scopeless) = (order().forged().mint(), order().mint());

    rig.unary(UNARY, rig.token().on(())).await.expect("admitted");
    rig.unary(UNARY, rig.token().on(())).await.expect("admitted");
    rig.unary(UNARY, forged.on(())).await.expect_err("forged");
    rig.unary(UNARY, scopeless.on(())).await.expect_err("no scope");
    rig.unary(UNDECLARED, Request::new(())).await.expect_err("undeclared");

    assert_eq!(
        log.lines(),
        [
            r#"INFO call refused path="/test.Echo/Unary" reason="TOKEN_INVALID" client="" detail=SignatureInvalid"#,
            r#"INFO call refused path="/test.Echo/Unary" reason="SCOPE_MISSING" client="order""#,
            r#"INFO call refused path="/test.Echo/Undeclared" reason="METHOD_UNDECLARED" client="""#,
        ]
    );
    let refusals = "countersign_guard_refusals_total enforced=true";
    assert_eq!(
        counts.all(),
        [
            ("countersign_guard_admitted_total method=/test.Echo/Unary".to_owned(), 2),
            (format!("{refusals} method=/test.Echo/Unary reason=SCOPE_MISSING"), 1),
            (format!("{refusals} method=/test.Echo/Unary reason=TOKEN_INVALID"), 1),
            (format!("{refusals} method=undeclared reason=METHOD_UNDECLARED"), 1),
        ]
    );
}

#[tokio::test]
async fn without_refusal_log_a_refusal_writes_no_line() {
    let mut rig = Rig::with(|guard| guard.without_refusal_log());
    let log = Log::start();
    rig.unary(UNARY, Request::new(())).await.expect_err("no token");
    assert_eq!(log.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_in_both_directions_is_reported_once() {
    let counts = Counts::default();
    let _recorder = metrics::set_default_local_recorder(&counts);
    let mut rig = Rig::new();
    let log = Log::start();
    let mut stream = rig.bidi(rig.token().on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    next(&mut stream).await.expect_err("it ends");
    rig.handler_error().await;
    assert_eq!(
        log.lines(),
        [r#"INFO stream ended path="/test.Echo/Bidi" reason="TOKEN_EXPIRED" client="order""#]
    );
    let ended = "countersign_guard_streams_ended_total enforced=true method=/test.Echo/Bidi reason=TOKEN_EXPIRED";
    assert!(counts.all().contains(&(ended.to_owned(), 1)), "{:?}", counts.all());
}

#[tokio::test]
async fn a_guard_that_only_reports_refuses_nothing_until_its_date() {
    let counts = Counts::default();
    let _recorder = metrics::set_default_local_recorder(&counts);
    let mut rig = Rig::with(|guard| guard.report_only_until(START + DAY));
    let log = Log::start();
    assert_eq!(counts.gauge(), 1.0);
    let scopeless = |rig: &Rig| rig.issuer.token("order").audience("echo").mint();

    assert_eq!(rig.unary(UNARY, rig.token().on(())).await.expect("admitted"), "order");
    assert_eq!(rig.unary(UNARY, Request::new(())).await.expect("reported"), "nobody");
    let reported = rig.unary(UNARY, scopeless(&rig).on(())).await.expect("reported");
    assert_eq!(reported, "nobody", "it is verified, and yet it would be refused");
    assert_eq!(rig.unary(UNDECLARED, Request::new(())).await.expect("reported"), "nobody");
    assert_eq!(
        log.lines(),
        [
            r#"WARN call would be refused path="/test.Echo/Unary" reason="TOKEN_MISSING" client="""#,
            r#"WARN call would be refused path="/test.Echo/Unary" reason="SCOPE_MISSING" client="order""#,
            r#"WARN call would be refused path="/test.Echo/Undeclared" reason="METHOD_UNDECLARED" client="""#,
        ]
    );

    rig.issuer.advance(DAY - Duration::from_secs(1));
    rig.unary(UNARY, Request::new(())).await.expect("reported to the last second");
    assert_eq!(counts.gauge(), 1.0);
    rig.issuer.advance(Duration::from_secs(1));
    let status = rig.unary(UNARY, Request::new(())).await.expect_err("now it enforces");
    assert_eq!(reason(&status), "TOKEN_MISSING");
    assert_eq!(rig.unary(UNARY, rig.token().on(())).await.expect("admitted"), "order");
    assert_eq!(counts.gauge(), 0.0);
}

#[tokio::test]
async fn a_token_that_someone_else_verified_does_not_count_as_permitted() {
    let mut rig = Rig::with(|guard| guard.report_only_until(START + DAY));
    let token = rig.token();
    let verified =
        rig.issuer.bundle().verify(token.expose(), Audiences::Any, START, Duration::ZERO);
    let mut request = Request::new(());
    request.extensions_mut().insert(Arc::new(verified.expect("a good token")));
    assert_eq!(rig.unary(UNARY, request).await.expect("reported"), "nobody");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_only_reports_ends_no_stream_until_its_date() {
    let mut rig = Rig::with(|guard| guard.report_only_until(START + DAY));
    let log = Log::start();
    let token = rig.token();
    let mut stream = rig.server_stream(SERVER_STREAM, token.on(())).await.expect("admitted");
    next(&mut stream).await.expect("a message");
    rig.issuer.revoke_token(&token);
    let waited = tokio::time::timeout(DAY - Duration::from_secs(1), stream.message()).await;
    assert!(waited.is_err(), "it goes on: {waited:?}");
    rig.issuer.advance(DAY);
    let status = next(&mut stream).await.expect_err("it ends");
    assert_eq!(reason(&status), "TOKEN_REVOKED");
    let says = |what: &str| log.lines().iter().filter(|line| line.contains(what)).count();
    assert_eq!((says("WARN stream would be ended"), says("INFO stream ended")), (1, 1));
}
