//! What is counted, and what must be zero.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many of a kind of failure are told.
const TOLD: usize = 10;

#[derive(Default)]
pub struct Figures {
    /// Calls that went through, with the tokens that sessions put on them.
    pub calls: AtomicU64,
    /// Tries of these with a token that had been revoked, each followed by another token.
    pub retries: AtomicU64,
    /// Calls that did not go out: there was no token yet, and the server was down.
    pub without_token: AtomicU64,
    pub rotations: AtomicU64,
    pub blocked: AtomicU64,
    pub revocations: AtomicU64,
    /// How often a revoked token was presented once more, long after.
    pub presented: AtomicU64,
    pub kills: AtomicU64,
    refused: Mutex<Vec<String>>,
    accepted: Mutex<Vec<String>>,
    connected: Mutex<Vec<Duration>>,
    cut_off: Mutex<Vec<Duration>>,
}

impl Figures {
    pub fn one(&self, figure: &AtomicU64) {
        figure.fetch_add(1, Ordering::SeqCst);
    }

    pub fn count(&self, figure: &AtomicU64) -> u64 {
        figure.load(Ordering::SeqCst)
    }

    /// A valid call was refused.
    pub fn refused(&self, how: String) {
        self.refused.lock().expect("no panic").push(how);
    }

    /// A revoked token was accepted past its bound.
    pub fn accepted(&self, how: String) {
        self.accepted.lock().expect("no panic").push(how);
    }

    /// From an acknowledged revocation until a guard refused, which had its stream all the time.
    pub fn connected(&self, took: Duration) {
        self.connected.lock().expect("no panic").push(took);
    }

    /// The same where the guard lost its stream meanwhile.
    pub fn cut_off(&self, took: Duration) {
        self.cut_off.lock().expect("no panic").push(took);
    }

    #[expect(clippy::print_stdout, reason = "the figures are what this is for")]
    pub fn print(&self) {
        let row = |what: &str, figure: &AtomicU64| println!("{what:<44} {:>9}", self.count(figure));
        let list = |what: &str, list: &Mutex<Vec<String>>| {
            let list = list.lock().expect("no panic");
            println!("{what:<44} {:>9}", list.len());
            list.iter().take(TOLD).for_each(|one| println!("  {one}"));
        };
        println!();
        row("calls", &self.calls);
        list("valid calls refused", &self.refused);
        list("revoked tokens accepted past the bound", &self.accepted);
        row("rotations", &self.rotations);
        row("rotations told to come again", &self.blocked);
        row("revocations", &self.revocations);
        row("revoked tokens presented again", &self.presented);
        row("kill -9", &self.kills);
        row("tries with a revoked token, made once more", &self.retries);
        row("calls without a token, the server down", &self.without_token);
        times("refused after, guard connected", &self.connected);
        times("refused after, guard cut off meanwhile", &self.cut_off);
    }

    /// Holds what Countersign promises.
    pub fn assert_kept(&self) {
        assert_eq!(self.refused.lock().expect("no panic").len(), 0, "valid calls were refused");
        assert_eq!(
            self.accepted.lock().expect("no panic").len(),
            0,
            "revoked tokens were accepted"
        );
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn times(what: &str, times: &Mutex<Vec<Duration>>) {
    let mut times = times.lock().expect("no panic").clone();
    times.sort_unstable();
    if let Some(longest) = times.last() {
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        println!(
            "{what:<44} {:>9}  p50 {:.1?}, p99 {:.1?}, max {longest:.1?}",
            times.len(),
            at(50),
            at(99),
        );
    }
}

/// Some number below this one.
pub fn random(below: u64) -> u64 {
    getrandom::u64().expect("randomness") % below
}
