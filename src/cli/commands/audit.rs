//! `audit list`.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::cli::args::admin::AuditListArgs;
use crate::cli::commands::{PAGE_SIZE, Server};
use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{self, Output, View};
use crate::cli::sheet::Sheet;
use crate::rpc::audit_service_client::AuditServiceClient;
use crate::rpc::{AuditEvent, ListAuditEventsRequest};

/// How often new events are looked for.
const EVERY: Duration = Duration::from_secs(1);

/// Lists the newest events that are asked for, and with `--follow` those that come after them, oldest first.
pub async fn list(
    args: &AuditListArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let connection = server.connect(output).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (events, mut newest) = fetch(&connection, args, 0, limit).await?;
    if !args.follow {
        return output.show(&Trail { events });
    }
    let mut new = events;
    loop {
        for event in new.into_iter().rev() {
            output.show(&Line(event))?;
        }
        tokio::time::sleep(EVERY).await;
        (new, newest) = fetch(&connection, args, newest, usize::MAX).await?;
    }
}

/// The newest events that are asked for, newest first, at most `limit`, and none up to a sequence. Also the newest
/// sequence that there is.
async fn fetch(
    connection: &Connection,
    args: &AuditListArgs,
    after: i64,
    limit: usize,
) -> Result<(Vec<Event>, i64), Error> {
    let mut service = AuditServiceClient::new(connection.clone());
    let (mut events, mut newest) = (Vec::new(), after);
    let mut page_token = String::new();
    loop {
        // Filtered here: the server's pages are what it has, newest first.
        let wanted = if is_filtered(args) { usize::MAX } else { limit - events.len() };
        let page_size = i32::try_from(wanted).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let request = ListAuditEventsRequest { page_size, page_token };
        let (page, now) = connection.answer_at(service.list_audit_events(request).await)?;
        let since = args.since.map(|span| unix(now).saturating_sub(span.as_secs()));
        newest = page.events.iter().map(|event| event.sequence).fold(newest, i64::max);
        // Events come newest first, so that no page after one that is too old has any that is wanted.
        let older = |event: &AuditEvent| event.sequence <= after || is_older(event, since);
        let done = page.events.last().is_some_and(older);
        let asked_for = page
            .events
            .into_iter()
            .filter(|event| event.sequence > after && is_asked_for(event, args, since));
        events.extend(asked_for.map(Event::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || events.len() >= limit || done {
            events.truncate(limit);
            return Ok((events, newest));
        }
    }
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

/// An event as it comes: a line of its own.
#[derive(Serialize)]
#[serde(transparent)]
struct Line(Event);

impl View for Line {
    fn human(&self, _: Sheet) -> String {
        let Event { create_time, actor, action, target, outcome, peer, detail, .. } = &self.0;
        let time = create_time.as_deref().unwrap_or("-");
        let parts = [time, actor, action, target, outcome, peer, detail];
        let parts = parts.into_iter().filter(|part| !part.is_empty()).map(escape);
        format!("{}\n", parts.collect::<Vec<_>>().join("  "))
    }
}

impl View for Trail {
    fn human(&self, sheet: Sheet) -> String {
        let rows: Vec<_> = self.events.iter().map(Event::row).collect();
        sheet.table(
            [
                ("SEQ", 2),
                ("TIME", 0),
                ("ACTOR", 0),
                ("ACTION", 0),
                ("TARGET", 0),
                ("OUTCOME", 0),
                ("COUNT", 4),
                ("PEER", 3),
                ("DETAIL", 1),
            ],
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
