//! `KeyService`.

use tonic::{Request, Response, Status};

use crate::authority::Rotation;
use crate::ring::{KeyInfo, KeyState};
use crate::rpc;
use crate::rpc::key_service_server::KeyService;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::{self, InvalidField, wire_time};
use crate::server::grpc::{Call, end};

pub(in crate::server) struct Keys(pub(in crate::server) Desk);

#[tonic::async_trait]
impl KeyService for Keys {
    async fn rotate_keys(
        &self,
        request: Request<rpc::RotateKeysRequest>,
    ) -> Result<Response<rpc::RotateKeysResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.rotate(&call).await)
    }

    async fn list_keys(
        &self,
        request: Request<rpc::ListKeysRequest>,
    ) -> Result<Response<rpc::ListKeysResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.list(&call.message))
    }

    async fn revoke_key(
        &self,
        request: Request<rpc::RevokeKeyRequest>,
    ) -> Result<Response<rpc::RevokeKeyResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.revoke(&call).await)
    }
}

impl Keys {
    async fn rotate(
        &self,
        call: &Call<rpc::RotateKeysRequest>,
    ) -> Result<rpc::RotateKeysResponse, CallError> {
        let act = call.act(&self.0, "KeyService/RotateKeys", &call.message.request_id)?;
        let rotation = if call.message.force { Rotation::Forced } else { Rotation::Planned };
        let change = self.0.authority.rotate_keys(act, rotation).await?;
        Ok(rpc::RotateKeysResponse {
            active: Some(wire_key(&change.active)),
            next: Some(wire_key(&change.next)),
            retired: Some(wire_key(&change.ended)),
            verifiers_behind: change.verifiers_behind,
        })
    }

    fn list(&self, message: &rpc::ListKeysRequest) -> Result<rpc::ListKeysResponse, CallError> {
        let size = fields::page_size(message.page_size)?;
        let keys = self.0.authority.keys();
        // A page goes on after a key, so that a rotation in between neither skips nor repeats one.
        let from = match message.page_token.as_str() {
            "" => 0,
            after => {
                keys.iter()
                    .position(|key| key.kid.as_str() == after)
                    .ok_or_else(fields::bad_page_token)?
                    + 1
            }
        };
        let page = &keys[from..keys.len().min(from + size)];
        let more = from + page.len() < keys.len();
        Ok(rpc::ListKeysResponse {
            keys: page.iter().map(|key| self.held_key(key)).collect(),
            next_page_token: page
                .last()
                .filter(|_| more)
                .map(|key| key.kid.to_string())
                .unwrap_or_default(),
            verifiers_connected: count(self.0.authority.verifiers().connected()),
        })
    }

    fn held_key(&self, key: &KeyInfo) -> rpc::Key {
        let holding = self.0.authority.verifiers().holding(&key.kid);
        rpc::Key { verifiers_holding: count(holding), ..wire_key(key) }
    }

    async fn revoke(
        &self,
        call: &Call<rpc::RevokeKeyRequest>,
    ) -> Result<rpc::RevokeKeyResponse, CallError> {
        let message = &call.message;
        if message.kid.is_empty() || message.kid.len() > 128 {
            return Err(InvalidField::new("kid", "empty or too long to be a kid").into());
        }
        let act = call.act(&self.0, "KeyService/RevokeKey", &message.request_id)?;
        let change = self.0.authority.revoke_key(act, message.kid.clone()).await?;
        Ok(rpc::RevokeKeyResponse {
            revoked: Some(wire_key(&change.ended)),
            active: Some(wire_key(&change.active)),
            next: Some(wire_key(&change.next)),
        })
    }
}

fn count(verifiers: usize) -> i32 {
    i32::try_from(verifiers).unwrap_or(i32::MAX)
}

fn wire_key(key: &KeyInfo) -> rpc::Key {
    let (state, retired, revoked) = match key.state {
        KeyState::Next => (rpc::KeyState::Next, false, false),
        KeyState::Active => (rpc::KeyState::Active, false, false),
        KeyState::Retired => (rpc::KeyState::Retired, true, false),
        KeyState::Revoked => (rpc::KeyState::Revoked, false, true),
    };
    rpc::Key {
        kid: key.kid.to_string(),
        state: state.into(),
        public_key: key.public_key.to_vec(),
        create_time: Some(wire_time(key.created_at)),
        activate_time: key.activated_at.map(wire_time),
        retire_time: key.ended_at.filter(|_| retired).map(wire_time),
        expire_time: key.gone_at.filter(|_| retired).map(wire_time),
        revoke_time: key.ended_at.filter(|_| revoked).map(wire_time),
        ..Default::default()
    }
}
