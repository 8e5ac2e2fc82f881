//! `AuditService`.

use tonic::{Request, Response, Status};

use crate::rpc;
use crate::rpc::audit_service_server::AuditService;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::{self, wire_time};
use crate::server::grpc::{Call, end};
use crate::store::AuditRow;

pub(in crate::server) struct Audit(pub(in crate::server) Desk);

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_events(
        &self,
        request: Request<rpc::ListAuditEventsRequest>,
    ) -> Result<Response<rpc::ListAuditEventsResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.list(&call.message).await)
    }
}

impl Audit {
    async fn list(
        &self,
        message: &rpc::ListAuditEventsRequest,
    ) -> Result<rpc::ListAuditEventsResponse, CallError> {
        let size = fields::page_size(message.page_size)?;
        let before = match message.page_token.as_str() {
            "" => None,
            token => Some(token.parse::<u64>().map_err(|_| fields::bad_page_token())?),
        };
        let rows = self.0.authority.audit_events(before, size).await?;
        // The chain begins at 1; what retention has removed is simply not there.
        let more = rows.len() == size && rows.last().is_some_and(|row| row.sequence > 1);
        Ok(rpc::ListAuditEventsResponse {
            next_page_token: rows
                .last()
                .filter(|_| more)
                .map(|row| row.sequence.to_string())
                .unwrap_or_default(),
            events: rows.into_iter().map(wire_event).collect(),
        })
    }
}

fn wire_event(row: AuditRow) -> rpc::AuditEvent {
    let AuditRow { sequence, event, .. } = row;
    rpc::AuditEvent {
        sequence: sequence.cast_signed(),
        create_time: Some(wire_time(event.at)),
        actor: event.actor,
        action: event.action,
        target: event.target,
        outcome: event.outcome,
        peer: event.peer,
        count: event.count.cast_signed(),
        detail: event.detail,
    }
}
