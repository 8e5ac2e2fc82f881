//! How a token stays fresh, and what happens when it cannot.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_mesh::claims::{Audience, Clock, ScopeSet};
use countersign_mesh::keys::SigningKey;
use countersign_mesh::session::{Credentials, NoToken, Session, TokenSource};
use countersign_mesh::token::Assertion;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::Code;

use crate::callee::{Callee, POLICIES, READ, call, call_within};
use crate::countersign::{Answer, FakeCountersign, USUAL, client};

/// Lets time pass. With the clock paused that takes no time.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn source(session: &Session) -> TokenSource {
    let scopes = ScopeSet::parse("stock:read").expect("scopes");
    session.token_source(Audience::new("shop").expect("an audience"), scopes)
}

async fn first(source: &TokenSource) {
    source.token(Instant::now() + Duration::from_secs(60)).await.expect("a token");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_when_its_issuer_says() {
    let countersign = FakeCountersign::new(USUAL);
    let session = countersign.session();
    let callee = Callee::new();
    let transport = session.attach(callee.clone(), POLICIES);
    assert_eq!(call(&transport, READ).await, Code::Ok);
    pass(449).await;
    assert_eq!(countersign.asked(), 1);
    pass(2).await;
    assert_eq!(countersign.asked(), 2);
    assert_eq!(call(&transport, READ).await, Code::Ok);
    assert_eq!(callee.tokens(READ)[1].as_deref(), Some("2/shop/stock:read"));
}

#[tokio::test(start_paused = true)]
async fn the_token_at_hand_serves_while_countersign_is_down() {
    let countersign = FakeCountersign::new(USUAL);
    let session = countersign.session();
    let callee = Callee::new();
    let transport = session.attach(callee.clone(), POLICIES);
    assert_eq!(call(&transport, READ).await, Code::Ok);

    countersign.answers(Answer::Error(Code::Unavailable));
    pass(890).await;
    let began = Instant::now();
    assert_eq!(call(&transport, READ).await, Code::Ok);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // The tries are further and further apart, up to half a minute.
    let tries = countersign.asked();
    assert!((440 / 30..440 / 15 + 10).contains(&tries), "{tries}");

    pass(11).await;
    assert_eq!(call_within(&transport, READ, "2S").await, Code::Unavailable);
    assert_eq!(callee.seen().len(), 2);

    countersign.answers(USUAL);
    assert_eq!(call_within(&transport, READ, "31S").await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn sources_that_fail_together_do_not_try_again_together() {
    let countersign = FakeCountersign::new(Answer::Error(Code::Unavailable));
    let sessions: Vec<_> = (0..20).map(|_| countersign.session()).collect();
    let _sources: Vec<_> = sessions.iter().map(source).collect();
    pass(300).await;
    let asked_at = countersign.asked_at();
    let moments: BTreeSet<_> = asked_at.iter().collect();
    assert!(moments.len() > asked_at.len() / 2, "{} of {}", moments.len(), asked_at.len());
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_tried_again_only_when_someone_asks() {
    let countersign = FakeCountersign::new(Answer::Error(Code::Unauthenticated));
    let session = countersign.session();
    let transport = session.attach(Callee::new(), POLICIES);
    assert_eq!(call(&transport, READ).await, Code::Unauthenticated);
    pass(3600).await;
    assert_eq!(countersign.asked(), 1, "nobody asked");

    countersign.answers(USUAL);
    assert_eq!(call(&transport, READ).await, Code::Unauthenticated);
    pass(1).await;
    assert_eq!(call(&transport, READ).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_gives_no_sensible_times_is_not_asked_all_the_time() {
    for (answer, most) in [
        (Answer::Token { expires_in: 0, refresh_in: 0 }, 20),
        (Answer::Token { expires_in: 900, refresh_in: 0 }, 2),
        (Answer::Token { expires_in: 900, refresh_in: 900 }, 2),
        (Answer::Token { expires_in: 1, refresh_in: 1 }, 602),
        (Answer::Token { expires_in: u64::MAX >> 1, refresh_in: u64::MAX >> 1 }, 1),
    ] {
        let countersign = FakeCountersign::new(answer);
        let session = countersign.session();
        let _source = source(&session);
        pass(600).await;
        assert!((1..=most + 30).contains(&countersign.asked()), "{}", countersign.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn all_tasks_stop_with_the_last_handle_of_a_session() {
    let countersign = FakeCountersign::new(USUAL);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let session = countersign.session();
    let transport = session.attach(Callee::new(), POLICIES);
    let trust = session.trust();
    assert_eq!(call(&transport, READ).await, Code::Ok);
    drop(session);
    pass(500).await;
    // One token for the calls, one for the trust stream, and the next one of each.
    assert_eq!(countersign.asked(), 4, "a client is a handle too, and so is a guard's trust");
    assert!(tasks() > before);

    drop((transport, trust));
    pass(3600).await;
    assert_eq!(countersign.asked(), 4);
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_under_way_stops_with_the_last_handle() {
    let countersign = FakeCountersign::new(Answer::Nothing);
    let before = Handle::current().metrics().num_alive_tasks();
    let session = countersign.session();
    let source = source(&session);
    pass(1).await;
    assert_eq!(countersign.asked(), 1);
    drop((session, source));
    pass(1).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_replaced_in_its_file_is_used_for_the_next_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, "csec_one\n").expect("written");
    let countersign = FakeCountersign::new(USUAL);
    let session = countersign.session_as(Credentials::from_file(client("order"), &path));
    first(&source(&session)).await;
    assert_eq!(countersign.last_secret(), "csec_one");

    std::fs::write(&path, " csec_two ").expect("written");
    pass(451).await;
    assert_eq!((countersign.asked(), countersign.last_secret()), (2, "csec_two".to_owned()));

    // The file is half written, or gone for a moment: there is no secret to try.
    std::fs::write(&path, "\n").expect("written");
    pass(451).await;
    std::fs::remove_file(&path).expect("removed");
    pass(100).await;
    assert_eq!(countersign.asked(), 2);
    std::fs::write(&path, "csec_three").expect("written");
    pass(31).await;
    assert_eq!((countersign.asked(), countersign.last_secret()), (3, "csec_three".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_refused_while_its_file_is_replaced_is_tried_again_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, "csec_one").expect("written");
    let countersign = FakeCountersign::new(Answer::Only("csec_two"));
    let session = countersign.session_as(Credentials::from_file(client("order"), &path));
    let source = source(&session);
    let began = Instant::now();
    pass(1).await;
    assert_eq!(countersign.last_secret(), "csec_one");
    std::fs::write(&path, "csec_two").expect("written");
    first(&source).await;
    assert_eq!(countersign.asked(), 2);
    assert!(began.elapsed() < Duration::from_millis(5100), "{:?}", began.elapsed());

    // A refused secret that has not changed is not tried again.
    let refusing = FakeCountersign::new(Answer::Only("csec_three"));
    let session = refusing.session_as(Credentials::from_file(client("order"), &path));
    let source = self::source(&session);
    let refused = source.token(Instant::now() + Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(NoToken::Refused(_))), "{refused:?}");
    assert_eq!(refusing.asked(), 1);
}

/// RFC 8410 §10.3: a private key, as openssl writes it.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

#[tokio::test(start_paused = true)]
async fn a_private_key_signs_another_assertion_for_each_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("order.key");
    std::fs::write(&path, PRIVATE_KEY).expect("written");
    let key = SigningKey::from_file_text(PRIVATE_KEY).expect("a key");
    let countersign = FakeCountersign::new(USUAL);
    let credentials = Credentials::private_key_file(client("order"), &path);
    assert!(!format!("{credentials:?}").contains("MC4C"));
    let session = countersign.session_as(credentials);
    let before = Clock::system().now();
    let source = source(&session);
    first(&source).await;
    let one = Assertion::parse(&countersign.last_assertion()).expect("an assertion");
    assert!(one.is_signed_by(key.public()));
    assert_eq!(one.kid.as_deref(), Some(key.kid().as_str()));
    assert_eq!((&*one.issuer, &*one.subject), ("order", "order"));
    assert_eq!(one.audiences, ["https://issuer.test".into()], "never what the server says");
    assert!(one.issued_at >= before && one.issued_at <= Clock::system().now());
    assert_eq!(one.expires_at.since(one.issued_at), Assertion::MAX_LIFE);

    pass(451).await;
    let two = Assertion::parse(&countersign.last_assertion()).expect("an assertion");
    assert_ne!(one.id, two.id, "each is good once");

    // The key is replaced: the next token is asked for with the new one.
    let other = PRIVATE_KEY.replace("INTu", "INTv");
    std::fs::write(&path, &other).expect("written");
    pass(451).await;
    let three = Assertion::parse(&countersign.last_assertion()).expect("an assertion");
    assert!(!three.is_signed_by(key.public()));
    let other = SigningKey::from_file_text(&other).expect("a key");
    assert!(three.is_signed_by(other.public()));
}
