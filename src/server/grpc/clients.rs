//! `ClientService`.

use std::time::Duration;

use countersign_mesh::claims::MAX_TOKEN_LIFE;
use tonic::{Request, Response, Status};

use crate::authority::{ActError, ClientPatch, Refusal};
use crate::client::{
    ClientSecret, ClientSettings, GrantRule, Grants, ResourceAlias, Resources, Serves,
};
use crate::rpc;
use crate::rpc::client_service_server::ClientService;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::{self, InvalidField, wire_time};
use crate::server::grpc::wire_client::wire_client;
use crate::server::grpc::{Call, end};

/// The longest description of a client, in characters.
const MAX_DESCRIPTION: usize = 256;

pub(in crate::server) struct Clients(pub(in crate::server) Desk);

#[tonic::async_trait]
impl ClientService for Clients {
    async fn create_client(
        &self,
        request: Request<rpc::CreateClientRequest>,
    ) -> Result<Response<rpc::CreateClientResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.create(&call).await)
    }

    async fn get_client(
        &self,
        request: Request<rpc::GetClientRequest>,
    ) -> Result<Response<rpc::GetClientResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.read(&call.message))
    }

    async fn list_clients(
        &self,
        request: Request<rpc::ListClientsRequest>,
    ) -> Result<Response<rpc::ListClientsResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.list(&call.message))
    }

    async fn update_client(
        &self,
        request: Request<rpc::UpdateClientRequest>,
    ) -> Result<Response<rpc::UpdateClientResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.update(&call).await)
    }

    async fn delete_client(
        &self,
        request: Request<rpc::DeleteClientRequest>,
    ) -> Result<Response<rpc::DeleteClientResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.delete(&call).await)
    }

    async fn create_client_credential(
        &self,
        request: Request<rpc::CreateClientCredentialRequest>,
    ) -> Result<Response<rpc::CreateClientCredentialResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.create_credential(&call).await)
    }

    async fn revoke_client_credential(
        &self,
        request: Request<rpc::RevokeClientCredentialRequest>,
    ) -> Result<Response<rpc::RevokeClientCredentialResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.revoke_credential(&call).await)
    }

    async fn revoke_client_tokens(
        &self,
        request: Request<rpc::RevokeClientTokensRequest>,
    ) -> Result<Response<rpc::RevokeClientTokensResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.revoke_tokens(&call).await)
    }
}

impl Clients {
    async fn create(
        &self,
        call: &Call<rpc::CreateClientRequest>,
    ) -> Result<rpc::CreateClientResponse, CallError> {
        let client =
            call.message.client.as_ref().ok_or_else(|| InvalidField::new("client", "missing"))?;
        let id = fields::name("client.client_id", &client.client_id)?;
        if ClientSecret::looks_like_one(&client.client_id) {
            let problem = "this is a secret and no id; revoke it, for it is where it should not be";
            return Err(InvalidField::new("client.client_id", problem).into());
        }
        let settings = ClientSettings {
            description: description(client)?,
            grants: grants(client)?,
            serves: serves(client)?,
            max_token_ttl: max_token_ttl(client)?,
            disabled: client.disabled,
            resources: resources(client)?,
        };
        let act = call.act(&self.0, "ClientService/CreateClient", &call.message.request_id)?;
        let created = self.0.authority.create_client(act, id, settings).await?;
        Ok(rpc::CreateClientResponse { client: Some(wire_client(&created)) })
    }

    fn read(&self, message: &rpc::GetClientRequest) -> Result<rpc::GetClientResponse, CallError> {
        let id = fields::name("client_id", &message.client_id)?;
        let client =
            self.0.authority.client(&id).ok_or(ActError::Refused(Refusal::NoSuchClient))?;
        Ok(rpc::GetClientResponse { client: Some(wire_client(&client)) })
    }

    fn list(
        &self,
        message: &rpc::ListClientsRequest,
    ) -> Result<rpc::ListClientsResponse, CallError> {
        let size = fields::page_size(message.page_size)?;
        let after = fields::optional_name("page_token", &message.page_token)
            .map_err(|_| fields::bad_page_token())?;
        let (clients, more) = self.0.authority.clients(after.as_ref(), size);
        Ok(rpc::ListClientsResponse {
            clients: clients.iter().map(wire_client).collect(),
            next_page_token: clients
                .last()
                .filter(|_| more)
                .map(|last| last.id.to_string())
                .unwrap_or_default(),
        })
    }

    async fn update(
        &self,
        call: &Call<rpc::UpdateClientRequest>,
    ) -> Result<rpc::UpdateClientResponse, CallError> {
        let message = &call.message;
        let client =
            message.client.as_ref().ok_or_else(|| InvalidField::new("client", "missing"))?;
        let id = fields::name("client.client_id", &client.client_id)?;
        let revision = revision("client.etag", &client.etag)?.ok_or_else(|| {
            InvalidField::new("client.etag", "missing; read the client first, and send its etag")
        })?;
        let paths = message.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            return Err(InvalidField::new("update_mask", "empty; name the fields to change").into());
        }
        let mut patch = ClientPatch::default();
        for path in paths {
            match path.as_str() {
                "description" => patch.description = Some(description(client)?),
                "grants" => patch.grants = Some(grants(client)?),
                "serves" => patch.serves = Some(serves(client)?),
                "max_token_ttl" => patch.max_token_ttl = Some(max_token_ttl(client)?),
                "disabled" => patch.disabled = Some(client.disabled),
                "resources" => patch.resources = Some(resources(client)?),
                _ => {
                    let problem = "it may name description, grants, serves, max_token_ttl, disabled and resources";
                    return Err(InvalidField::new("update_mask", problem).into());
                }
            }
        }
        let act = call.act(&self.0, "ClientService/UpdateClient", &message.request_id)?;
        let updated = self.0.authority.update_client(act, id, revision, patch).await?;
        Ok(rpc::UpdateClientResponse { client: Some(wire_client(&updated)) })
    }

    async fn delete(
        &self,
        call: &Call<rpc::DeleteClientRequest>,
    ) -> Result<rpc::DeleteClientResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let revision = revision("etag", &message.etag)?;
        let act = call.act(&self.0, "ClientService/DeleteClient", &message.request_id)?;
        self.0.authority.delete_client(act, id, revision).await?;
        Ok(rpc::DeleteClientResponse {})
    }

    async fn revoke_tokens(
        &self,
        call: &Call<rpc::RevokeClientTokensRequest>,
    ) -> Result<rpc::RevokeClientTokensResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let act = call.act(&self.0, "ClientService/RevokeClientTokens", &message.request_id)?;
        let before = self.0.authority.revoke_client_tokens(act, id).await?;
        Ok(rpc::RevokeClientTokensResponse { revoked_before: Some(wire_time(before)) })
    }
}

fn description(client: &rpc::Client) -> Result<Box<str>, InvalidField> {
    let text = client.description.as_str();
    if text.chars().count() > MAX_DESCRIPTION || text.chars().any(char::is_control) {
        return Err(InvalidField::new(
            "client.description",
            "longer than 256 characters, or with control characters",
        ));
    }
    Ok(text.into())
}

fn grants(client: &rpc::Client) -> Result<Grants, InvalidField> {
    let rules = client.grants.iter().enumerate().map(|(at, grant)| {
        Ok(GrantRule {
            audience: fields::name(&format!("client.grants[{at}].audience"), &grant.audience)?,
            scopes: fields::scopes(&format!("client.grants[{at}].scopes"), &grant.scopes)?,
        })
    });
    let rules: Vec<GrantRule> = rules.collect::<Result<_, InvalidField>>()?;
    Grants::try_from(rules).map_err(|error| InvalidField::new("client.grants", error))
}

fn serves(client: &rpc::Client) -> Result<Serves, InvalidField> {
    let audiences = client.serves.iter().enumerate();
    let audiences =
        audiences.map(|(at, audience)| fields::name(&format!("client.serves[{at}]"), audience));
    Serves::try_from(audiences.collect::<Result<Vec<_>, InvalidField>>()?)
        .map_err(|error| InvalidField::new("client.serves", error))
}

fn resources(client: &rpc::Client) -> Result<Resources, InvalidField> {
    let aliases = client.resources.iter().enumerate().map(|(at, alias)| {
        Ok(ResourceAlias {
            uri: fields::name(&format!("client.resources[{at}].uri"), &alias.uri)?,
            audience: fields::name(&format!("client.resources[{at}].audience"), &alias.audience)?,
        })
    });
    Resources::try_from(aliases.collect::<Result<Vec<_>, InvalidField>>()?)
        .map_err(|error| InvalidField::new("client.resources", error))
}

fn max_token_ttl(client: &rpc::Client) -> Result<Option<Duration>, InvalidField> {
    let field = "client.max_token_ttl";
    match &client.max_token_ttl {
        None => Ok(None),
        Some(ttl) => match fields::life(field, ttl)? {
            ttl if ttl <= MAX_TOKEN_LIFE => Ok(Some(ttl)),
            _ => Err(InvalidField::new(field, "longer than 24 hours")),
        },
    }
}

/// Etags are revisions, in hexadecimal.
fn revision(field: &str, etag: &str) -> Result<Option<u64>, InvalidField> {
    match etag {
        "" => Ok(None),
        etag => u64::from_str_radix(etag, 16).map(Some).map_err(|_| {
            InvalidField::new(field, "not an etag; read the client first, and send its etag")
        }),
    }
}
