//! Keys and revocations by Countersign's stream. Time is tokio's, and stands still until it is moved.

use std::time::Duration;

use countersign::rpc::{TrustContent, WatchTrustBundleResponse};
use countersign_mesh::claims::{ClientId, Clock, TokenId};
use countersign_mesh::guard::{Trust, WhenStale};
use countersign_mesh::session::{Credentials, FedBy, Session, SessionBuilder};
use tokio::time::Instant;
use tonic::Code;

use crate::countersign::{Answer, FakeCountersign, USUAL, client};
use crate::endpoint::FakeEndpoint;
use crate::trust::{ISSUER, bundle, call, issuer, until_known};
use crate::trust_server::{
    FakeTrust, Openings, Watcher, and_client, and_token, delta, heartbeat, keys, proof, snapshot,
};

/// A verifier, and the Countersign that it watches.
pub struct Rig {
    pub countersign: FakeCountersign,
    pub server: FakeTrust,
    pub openings: Openings,
    pub session: Session,
    pub trust: Trust,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(configure: impl FnOnce(SessionBuilder) -> SessionBuilder) -> Self {
        let countersign = FakeCountersign::new(USUAL);
        let (server, openings) = FakeTrust::new();
        let channel = countersign.channel_beside(&server);
        // Nobody listens at this address, so there is no JWK Set to poll.
        let credentials = Credentials::new(client("shop"), "csec_hush");
        let builder = Session::builder("http://127.0.0.1:1", credentials).channel(channel);
        let session = configure(builder).connect().expect("a loopback address");
        let trust = session.trust();
        Self { countersign, server, openings, session, trust }
    }

    fn knows_token(&self, id: &str) -> bool {
        let id = TokenId::new(id).expect("a token id");
        self.trust.bundle().is_some_and(|bundle| bundle.revocations.token(&id).is_some())
    }

    fn knows_client(&self, id: &str) -> bool {
        let id = ClientId::new(id).expect("a client id");
        self.trust.bundle().is_some_and(|bundle| bundle.revocations.client(&id).is_some())
    }

    fn epoch(&self) -> Option<u64> {
        self.trust.bundle().map(|bundle| bundle.epoch)
    }

    /// Waits until the verifier has dropped the stream.
    async fn until_dropped(&self, mut watcher: Watcher) {
        assert_eq!(watcher.ack().await, None);
    }
}

/// When what is revoked now may be forgotten, in seconds since the Unix epoch.
pub fn later() -> u64 {
    Clock::system().now().as_unix() + 10_000
}

pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Says every five seconds that nothing changed.
pub async fn beat(watcher: &Watcher, epoch: u64, seconds: u64) {
    for _ in 0..seconds / 5 {
        watcher.send(heartbeat(epoch));
        pass(5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_takes_effect_when_its_last_part_has_come() {
    let mut rig = Rig::with(|builder| builder.verifier_name("pod-7"));
    let mut watcher = rig.openings.next().await;
    assert_eq!(rig.server.tokens(), ["Bearer 1/countersign/trust:watch"]);
    assert_eq!((watcher.hello.verifier_name.as_str(), watcher.hello.have_epoch), ("pod-7", 0));
    watcher.send(snapshot(4, and_token(keys(1), "one", later()), false));
    watcher.send(snapshot(4, and_token(TrustContent::default(), "two", later()), false));
    pass(1).await;
    assert_eq!((rig.epoch(), call(&rig.trust, 1).await), (None, Code::Unavailable));
    watcher.send(snapshot(4, and_client(TrustContent::default(), "cron", 9, later()), true));
    assert_eq!(watcher.ack().await, Some(4));
    assert_eq!((rig.epoch(), call(&rig.trust, 1).await), (Some(4), Code::Ok));
    assert!(rig.knows_token("one") && rig.knows_token("two") && rig.knows_client("cron"));
    assert_eq!(rig.session.health().fed_by, FedBy::Stream);
}

#[tokio::test(start_paused = true)]
async fn a_delta_adds_revocations_and_replaces_keys() {
    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    watcher.send(snapshot(4, and_token(keys(1), "one", later()), true));
    assert_eq!(watcher.ack().await, Some(4));
    watcher.send(delta(4, 6, and_client(keys(2), "order", later(), later())));
    // By the time of the acknowledgement, guards see what it acknowledges.
    assert_eq!(watcher.ack().await, Some(6));
    assert!(rig.knows_token("one") && rig.knows_client("order"));
    assert_eq!(call(&rig.trust, 1).await, Code::Unauthenticated);
    assert_eq!(call(&rig.trust, 2).await, Code::Unauthenticated, "revoked");
    // A revocation of a token that has expired is not kept.
    watcher.send(delta(6, 7, and_token(keys(2), "old", 1_000)));
    assert_eq!(watcher.ack().await, Some(7));
    assert!(!rig.knows_token("old"));
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_goes_on_at_the_epoch_of_the_lost_one() {
    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    watcher.bring(4, 1).await;
    watcher.fail(Code::Unavailable);
    let mut watcher = rig.openings.next().await;
    assert_eq!((watcher.hello.have_epoch, &*watcher.hello.have_epoch_proof), (4, &*proof(4)));
    assert_eq!(call(&rig.trust, 1).await, Code::Ok, "with what it has");
    watcher.send(delta(4, 5, and_token(keys(1), "one", later())));
    assert_eq!(watcher.ack().await, Some(5));
    assert!(rig.knows_token("one"));

    // An epoch without news is acknowledged all the same, so that a restarted server knows who holds
    // it.
    watcher.fail(Code::Unavailable);
    let mut watcher = rig.openings.next().await;
    watcher.send(delta(5, 5, keys(1)));
    assert_eq!(watcher.ack().await, Some(5));
    watcher.fail(Code::Unavailable);
    let mut watcher = rig.openings.next().await;
    watcher.send(heartbeat(5));
    assert_eq!(watcher.ack().await, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_lost_after_three_heartbeats() {
    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    watcher.bring(4, 1).await;
    beat(&watcher, 4, 60).await;
    let silent_since = Instant::now();
    rig.until_dropped(watcher).await;
    let silence = silent_since.elapsed();
    // The last heartbeat was five seconds before.
    assert!((9..11).contains(&silence.as_secs()), "{silence:?}");
    rig.openings.next().await;
}

#[tokio::test(start_paused = true)]
async fn reconnects_back_off_with_jitter_and_wait_15_seconds_at_most() {
    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    watcher.bring(4, 1).await;
    beat(&watcher, 4, 10).await;
    rig.server.refuses(Some(Code::Unavailable));
    watcher.fail(Code::Unavailable);
    let lost_at = Instant::now();
    pass(600).await;
    let asked_at = rig.server.asked_at();
    let waits: Vec<_> = asked_at.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(asked_at[1] - lost_at <= Duration::from_millis(101), "{:?}", asked_at[1] - lost_at);
    assert!(waits.iter().skip(1).all(|wait| *wait < Duration::from_millis(15_100)), "{waits:?}");
    assert!(waits.len() > 40, "{waits:?}");
    // The waits are spread.
    let late = &waits[10..];
    assert!(late.iter().any(|wait| wait.as_secs() < 7), "{late:?}");
    assert!(late.iter().any(|wait| wait.as_secs() >= 7), "{late:?}");
    assert_eq!(call(&rig.trust, 1).await, Code::Ok, "with what it has");
}

#[tokio::test(start_paused = true)]
async fn an_older_epoch_is_refused_and_the_held_one_is_offered_again() {
    let mut rig = Rig::new();
    rig.openings.next().await.bring(9, 1).await;
    for older in [snapshot(8, keys(2), true), heartbeat(8), delta(7, 8, keys(2))] {
        let watcher = rig.openings.next().await;
        assert_eq!((watcher.hello.have_epoch, &*watcher.hello.have_epoch_proof), (9, &*proof(9)));
        watcher.send(older);
        rig.until_dropped(watcher).await;
        assert_eq!((rig.epoch(), call(&rig.trust, 2).await), (Some(9), Code::Unauthenticated));
    }
    // A store that was restored properly is ahead of every earlier epoch.
    rig.openings.next().await.bring(1 << 32, 2).await;
    assert_eq!((rig.epoch(), call(&rig.trust, 2).await), (Some(1 << 32), Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn only_the_named_issuer_or_the_first_to_come_is_believed() {
    let of_other = || WatchTrustBundleResponse {
        issuer: "https://other.test".to_owned(),
        ..snapshot(9, keys(2), true)
    };
    let mut named = Rig::with(|builder| builder.issuer(issuer(ISSUER)));
    let watcher = named.openings.next().await;
    watcher.send(of_other());
    named.until_dropped(watcher).await;
    assert_eq!(named.epoch(), None);

    let mut unnamed = Rig::new();
    unnamed.openings.next().await.bring(4, 1).await;
    let watcher = unnamed.openings.next().await;
    watcher.send(of_other());
    unnamed.until_dropped(watcher).await;
    assert_eq!((unnamed.epoch(), call(&unnamed.trust, 1).await), (Some(4), Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn malformed_messages_end_the_stream_and_change_nothing() {
    let mut rig = Rig::new();
    rig.openings.next().await.bring(4, 1).await;
    let without_until = {
        let mut content = and_token(keys(2), "one", 0);
        content.tokens[0].until = None;
        content
    };
    for nonsense in [
        snapshot(5, TrustContent::default(), true),
        snapshot(5, TrustContent { jwks: "noise".to_owned(), ..Default::default() }, true),
        snapshot(5, TrustContent { revoked_kids: vec![String::new()], ..keys(2) }, true),
        snapshot(5, and_token(keys(2), "no token\n", later()), true),
        snapshot(5, and_client(keys(2), "", 1, later()), true),
        snapshot(5, without_until, true),
        WatchTrustBundleResponse { epoch_proof: vec![0; 2000], ..heartbeat(4) },
        delta(6, 5, keys(2)),
    ] {
        let watcher = rig.openings.next().await;
        watcher.send(nonsense.clone());
        rig.until_dropped(watcher).await;
        assert_eq!((rig.epoch(), call(&rig.trust, 1).await), (Some(4), Code::Ok), "{nonsense:?}");
    }
    // Parts of two snapshots, mixed.
    let watcher = rig.openings.next().await;
    watcher.send(snapshot(5, keys(2), false));
    watcher.send(snapshot(6, keys(2), true));
    rig.until_dropped(watcher).await;
    // An event that this version does not know is ignored.
    let mut watcher = rig.openings.next().await;
    watcher.send(WatchTrustBundleResponse { event: None, ..heartbeat(4) });
    watcher.send(delta(4, 5, keys(2)));
    assert_eq!(watcher.ack().await, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_missed_a_change_asks_for_a_snapshot() {
    for missed in [delta(6, 7, keys(2)), heartbeat(7)] {
        let mut rig = Rig::new();
        rig.openings.next().await.bring(4, 1).await;
        let watcher = rig.openings.next().await;
        watcher.send(missed);
        rig.until_dropped(watcher).await;
        assert_eq!(call(&rig.trust, 1).await, Code::Ok, "with what it has");
        let mut watcher = rig.openings.next().await;
        assert_eq!((watcher.hello.have_epoch, watcher.hello.have_epoch_proof.len()), (0, 0));
        watcher.bring(7, 2).await;
        assert_eq!(call(&rig.trust, 2).await, Code::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_stops_with_the_last_handle_of_its_trust() {
    let Rig { server, mut openings, session, trust, countersign } = Rig::new();
    let mut watcher = openings.next().await;
    watcher.bring(4, 1).await;
    drop(session);
    beat(&watcher, 4, 60).await;
    assert!(trust.is_fresh(), "a guard is enough to keep it going");
    drop(trust);
    assert_eq!(watcher.ack().await, None);
    let asked = countersign.asked();
    pass(10_000).await;
    assert_eq!((server.asked_at().len(), countersign.asked()), (1, asked));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_revoked_is_replaced_before_it_counts_as_refused() {
    let rig = Rig::new();
    rig.server.refuses(Some(Code::Unauthenticated));
    pass(2).await;
    let tokens = rig.server.tokens();
    assert_eq!(
        tokens[..2],
        ["Bearer 1/countersign/trust:watch", "Bearer 2/countersign/trust:watch"]
    );
    assert_eq!(rig.session.health().fed_by, FedBy::Nobody, "others may have been revoked since");
    pass(30).await;
    assert_eq!(rig.session.health().fed_by, FedBy::Polling);
    let tried = rig.server.tokens().len();
    pass(60).await;
    assert_eq!(rig.server.tokens().len(), tried, "it has had its answer");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_tokens_are_revoked_twice_in_a_row_is_back_in_seconds() {
    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    watcher.bring(4, 1).await;
    let revoked_at = Instant::now();
    for epoch in [5, 6] {
        // The server refuses until the next token is here. A source replaces a refused token once in
        // five seconds.
        rig.server.refuses(Some(Code::Unauthenticated));
        let tokens = rig.countersign.asked();
        watcher.fail(Code::Unauthenticated);
        while rig.countersign.asked() == tokens {
            pass(1).await;
        }
        rig.server.refuses(None);
        watcher = rig.openings.next().await;
        watcher.bring(epoch, 1).await;
    }
    assert!(revoked_at.elapsed() < Duration::from_secs(15), "{:?}", revoked_at.elapsed());
}

#[tokio::test]
async fn a_session_that_is_refused_the_stream_polls_until_it_is_admitted() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 5, 1).to_jwks());
    let countersign = FakeCountersign::new(Answer::Error(Code::PermissionDenied));
    let (server, mut openings) = FakeTrust::new();
    let session =
        Session::builder(&endpoint.url(""), Credentials::new(client("shop"), "csec_hush"))
            .channel(countersign.channel_beside(&server))
            .connect()
            .expect("loopback");
    let trust = session.trust();
    until_known(&trust, 1).await;
    assert_eq!(call(&trust, 1).await, Code::Ok);
    while session.health().fed_by != FedBy::Polling {
        tokio::task::yield_now().await;
    }
    assert!(trust.is_fresh(), "a poll is all that there can be");

    countersign.answers(USUAL);
    tokio::time::pause();
    let mut watcher = openings.next().await;
    assert_eq!(watcher.hello.have_epoch, 0, "what was polled has no revocations");
    watcher.send(snapshot(5, and_token(keys(1), "one", later()), true));
    assert_eq!(watcher.ack().await, Some(5));
    assert_eq!(session.health().fed_by, FedBy::Stream);

    // An unknown key causes no fetch: the stream would have brought it.
    let fetches = endpoint.seen().len();
    for _ in 0..30 {
        assert_eq!(call(&trust, 2).await, Code::Unauthenticated);
        beat(&watcher, 5, 10).await;
    }
    assert_eq!(endpoint.seen().len(), fetches);

    // Without a stream, keys come by polling again, and no revocation is forgotten.
    server.refuses(Some(Code::PermissionDenied));
    endpoint.answers("200 OK", &bundle(ISSUER, 6, 2).to_jwks());
    watcher.fail(Code::Unavailable);
    tokio::time::resume();
    until_known(&trust, 2).await;
    let known = trust.bundle().expect("there is a bundle");
    assert!(known.revocations.token(&TokenId::new("one").expect("an id")).is_some());

    // The polled keys of epoch 6 brought no revocations, so the stream goes on from epoch 5.
    server.refuses(None);
    tokio::time::pause();
    let mut watcher = openings.next().await;
    assert_eq!(watcher.hello.have_epoch, 5);
    watcher.send(delta(6, 7, keys(2)));
    assert_eq!(watcher.ack().await, None);
    let mut watcher = openings.next().await;
    assert_eq!(watcher.hello.have_epoch, 0);
    watcher.bring(7, 2).await;
    assert_eq!(call(&trust, 2).await, Code::Ok);
}

#[tokio::test]
async fn a_session_that_has_had_the_stream_does_not_poll_even_while_it_is_lost() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 6, 2).to_jwks());
    let countersign = FakeCountersign::new(USUAL);
    let (server, mut openings) = FakeTrust::new();
    let session =
        Session::builder(&endpoint.url(""), Credentials::new(client("shop"), "csec_hush"))
            .channel(countersign.channel_beside(&server))
            .connect()
            .expect("loopback");
    let trust = session.trust();
    let mut watcher = openings.next().await;
    watcher.bring(4, 1).await;
    server.refuses(Some(Code::Unavailable));
    watcher.fail(Code::Unavailable);
    tokio::time::pause();
    for _ in 0..60 {
        // A token with an unknown key causes no poll either.
        assert_eq!(call(&trust, 2).await, Code::Unauthenticated);
        pass(10).await;
        assert_eq!(call(&trust, 1).await, Code::Ok, "with what it has");
    }
    assert_eq!((endpoint.seen().len(), session.health().fed_by), (0, FedBy::Nobody));

    server.refuses(None);
    let mut watcher = openings.next().await;
    watcher.send(delta(4, 6, keys(2)));
    assert_eq!(watcher.ack().await, Some(6));
    assert_eq!((call(&trust, 2).await, endpoint.seen().len()), (Code::Ok, 0));
}

#[tokio::test]
async fn a_session_whose_stream_does_not_come_up_in_time_starts_with_polled_keys() {
    let endpoint = FakeEndpoint::start(None).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 4, 1).to_jwks());
    let countersign = FakeCountersign::new(USUAL);
    let (server, mut openings) = FakeTrust::new();
    server.refuses(Some(Code::Unavailable));
    let builder = |when_stale| {
        Session::builder(&endpoint.url(""), Credentials::new(client("shop"), "csec_hush"))
            .channel(countersign.channel_beside(&server))
            .when_stale(when_stale)
    };
    let session = builder(WhenStale::ServeStale).connect().expect("loopback");
    let trust = session.trust();
    let strict = builder(WhenStale::FailClosed).connect().expect("loopback").trust();
    while server.asked_at().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!((endpoint.seen().len(), call(&trust, 1).await), (0, Code::Unavailable));
    crate::endpoint::pass(Duration::from_secs(3)).await;
    until_known(&trust, 1).await;
    until_known(&strict, 1).await;
    assert_eq!((call(&trust, 1).await, session.health().fed_by), (Code::Ok, FedBy::Nobody));
    assert_eq!((trust.is_fresh(), call(&strict, 1).await), (false, Code::Unavailable));

    server.refuses(None);
    tokio::time::pause();
    let mut watchers = [openings.next().await, openings.next().await];
    for watcher in &mut watchers {
        assert_eq!(watcher.hello.have_epoch, 0, "what was polled has no revocations");
        watcher.bring(4, 1).await;
    }
    assert_eq!((trust.is_fresh(), call(&strict, 1).await), (true, Code::Ok));
}
