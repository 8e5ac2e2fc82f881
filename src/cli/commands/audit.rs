//! `audit list`.

use serde::Serialize;

use crate::cli::commands::{PAGE_SIZE, Server};
use crate::cli::error::Error;
use crate::cli::output::{self, Output, View};
use crate::rpc::audit_service_client::AuditServiceClient;
use crate::rpc::{AuditEvent, ListAuditEventsRequest};

/// Lists the newest events, at most `limit`.
pub async fn list(limit: u32, server: &Server<'_>, output: &mut Output<'_>) -> Result<(), Error> {
    let connection = server.connect(output).await?;
    let mut service = AuditServiceClient::new(connection.clone());
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = i32::try_from(limit - events.len()).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let page = connection.answer(
            service.list_audit_events(ListAuditEventsRequest { page_size, page_token }).await,
        )?;
        events.extend(page.events.into_iter().map(Event::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || events.len() >= limit {
            break;
        }
    }
    events.truncate(limit);
    output.show(&Trail { events })
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
