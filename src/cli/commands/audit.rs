//! `audit list`.

use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::admin::AuditListArgs;
use crate::cli::commands::{PAGE_SIZE, Server};
use crate::cli::error::Error;
use crate::cli::output::{self, Output, View};
use crate::rpc::audit_service_client::AuditServiceClient;
use crate::rpc::{AuditEvent, ListAuditEventsRequest};

/// Lists the newest events that are asked for.
pub async fn list(
    args: &AuditListArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let connection = server.connect(output).await?;
    let mut service = AuditServiceClient::new(connection.clone());
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        // Filtered here: the server's pages are what it has, newest first.
        let wanted = if is_filtered(args) { limit } else { limit - events.len() };
        let page_size = i32::try_from(wanted).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let request = ListAuditEventsRequest { page_size, page_token };
        let (page, now) = connection.answer_at(service.list_audit_events(request).await)?;
        let since = args.since.map(|span| unix(now).saturating_sub(span.as_secs()));
        // Events come newest first, so that no page after one that is too old has any that is wanted.
        let older = page.events.last().is_some_and(|event| is_older(event, since));
        let asked_for = page.events.into_iter().filter(|event| is_asked_for(event, args, since));
        events.extend(asked_for.map(Event::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || events.len() >= limit || older {
            break;
        }
    }
    events.truncate(limit);
    output.show(&Trail { events })
}

fn is_filtered(args: &AuditListArgs) -> bool {
    args.actor.is_some() || args.action.is_some() || args.target.is_some()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn is_older(event: &AuditEvent, since: Option<u64>) -> bool {
    let made = event.create_time.as_ref().and_then(|time| u64::try_from(time.seconds).ok());
    since.is_some_and(|since| made.unwrap_or(0) < since)
}

fn is_asked_for(event: &AuditEvent, args: &AuditListArgs, since: Option<u64>) -> bool {
    let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|it| it == found);
    is(&args.actor, &event.actor)
        && is(&args.target, &event.target)
        && args.action.as_ref().is_none_or(|action| event.action.starts_with(action.as_str()))
        && !is_older(event, since)
}

#[derive(Serialize)]
struct Trail {
    events: Vec<Event>,
}

#[derive(Serialize)]
struct Event {
    sequence: i64,
    create_time: Option<String>,
    actor: String,
    action: String,
    target: String,
    outcome: String,
    peer: String,
    count: i64,
    detail: String,
}

impl From<AuditEvent> for Event {
    fn from(event: AuditEvent) -> Self {
        let AuditEvent {
            sequence,
            create_time,
            actor,
            action,
            target,
            outcome,
            peer,
            count,
            detail,
        } = event;
        let create_time = create_time.as_ref().map(output::time);
        Self { sequence, create_time, actor, action, target, outcome, peer, count, detail }
    }
}

impl View for Trail {
    fn human(&self) -> String {
        let rows: Vec<_> = self.events.iter().map(Event::row).collect();
        output::table(
            ["SEQ", "TIME", "ACTOR", "ACTION", "TARGET", "OUTCOME", "COUNT", "PEER", "DETAIL"],
            &rows,
        )
    }
}

impl Event {
    fn row(&self) -> [String; 9] {
        [
            self.sequence.to_string(),
            self.create_time.clone().unwrap_or_else(|| "-".to_owned()),
            self.actor.clone(),
            self.action.clone(),
            self.target.clone(),
            self.outcome.clone(),
            self.count.to_string(),
            self.peer.clone(),
            self.detail.clone(),
        ]
    }
}
