//! The administration of clients, their grants and their secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::{COUNTERSIGN, ClientId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authority::{
    Act, ActError, Authority, MOST_AHEAD, Refusal, SKEW_ALLOWANCE, TAIL, no_randomness,
};
use crate::client::{
    Client, ClientInfo, ClientSecret, ClientSettings, Grants, LastUse, Resources, SecretHash,
    SecretId, SecretInfo, Serves, StoredSecret,
};
use crate::policy::{
    ADMINISTRATIVE_SCOPES, can_administer_operators, may_change, may_make_credential,
};
use crate::store::{Change, Committed, State};

/// New values for some of a client's settings.
#[derive(Debug, Clone, Default)]
pub struct ClientPatch {
    /// The description.
    pub description: Option<Box<str>>,
    /// The grants, all of them.
    pub grants: Option<Grants>,
    /// The audiences that it serves, all of them.
    pub serves: Option<Serves>,
    /// The longest life of its tokens; the inner `None` means the server's default.
    pub max_token_ttl: Option<Option<Duration>>,
    /// Whether it is disabled.
    pub disabled: Option<bool>,
    /// The other names of its audiences, all of them.
    pub resources: Option<Resources>,
}

/// What a request for a secret comes to.
#[derive(Debug)]
pub enum CreatedSecret {
    /// The secret, shown this once.
    New(ClientSecret, SecretInfo),
    /// The same request made this one before; it is not shown again.
    Before(SecretId),
}

/// What becomes of the tokens that a client has when one of its secrets is revoked. Nobody knows which
/// of them it got with that secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokensSoFar {
    /// They live on.
    Kept,
    /// All of them are revoked.
    Revoked,
}

/// Where a client's tokens were cut off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct CutOff(Timestamp);

impl Authority {
    /// Registers a client, without a secret.
    ///
    /// # Errors
    /// When there is one of this name, or policy does not allow these settings.
    pub async fn create_client(
        &self,
        act: Act,
        id: ClientId,
        settings: ClientSettings,
    ) -> Result<ClientInfo, ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        self.act(act, "client.create", &target, move |state, event, now| {
            if state.clients.get(&id).is_some() {
                return Err(Refusal::ClientExists);
            }
            may_change(&operator, None, Some(&settings)).map_err(Refusal::Denied)?;
            event.detail = describe(&settings);
            let client =
                Client { revision: state.next_revision(), ..Client::new(id, settings, now) };
            let info = client.info();
            Ok((vec![Change::PutClient(client)], info))
        })
        .await
        .map(Committed::into_answer)
    }

    /// One client.
    pub fn client(&self, id: &ClientId) -> Option<ClientInfo> {
        self.published.snapshot().state.clients.get(id).map(|client| client.info())
    }

    /// Up to `limit` clients in the order of their ids, from after one, and whether there are more.
    pub fn clients(&self, after: Option<&ClientId>, limit: usize) -> (Vec<ClientInfo>, bool) {
        let snapshot = self.published.snapshot();
        let all = snapshot.state.clients.iter().map(|(_, client)| client);
        let mut page: Vec<&Arc<Client>> =
            all.filter(|client| after.is_none_or(|after| client.id > *after)).collect();
        let more = page.len() > limit;
        if more {
            page.select_nth_unstable_by(limit, |a, b| a.id.cmp(&b.id));
            page.truncate(limit);
        }
        page.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        (page.into_iter().map(|client| client.info()).collect(), more)
    }

    /// Changes settings of a client, if it is still at the revision that the operator read. Disabling
    /// it, or taking an administrative scope away, also revokes its tokens so far.
    ///
    /// # Errors
    /// When there is no such client, it has changed, policy does not allow it, or the last operator
    /// would be gone.
    pub async fn update_client(
        &self,
        act: Act,
        id: ClientId,
        revision: u64,
        patch: ClientPatch,
    ) -> Result<ClientInfo, ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        let dated = Arc::clone(&self.dated);
        self.act(act, "client.update", &target, move |state, event, now| {
            let before = known(state, &id)?;
            let settings = patch.apply_to(&before.settings);
            may_change(&operator, Some(&before.settings), Some(&settings))
                .map_err(Refusal::Denied)?;
            if before.revision != revision {
                return Err(Refusal::EtagStale);
            }
            let cut = settings.disabled && !before.settings.disabled
                || loses_administrative_scope(&before.settings, &settings);
            let revision = state.next_revision();
            let mut after = Client { settings, updated_at: now, revision, ..Client::clone(before) };
            after.note_former_audiences(before, now, now + TAIL);
            keep_an_operator(state, before, Some(&after), now)?;
            event.detail = describe(&after.settings);
            let info = after.info();
            let revoked = cut.then(|| cut_off(state, before, now, latest(&dated, now)));
            let changes = [Change::PutClient(after)].into_iter().chain(revoked).collect();
            Ok((changes, info))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Deletes a client with its secrets, and revokes its tokens so far. When a revision is given, only
    /// if the client is still at it.
    ///
    /// # Errors
    /// When there is no such client, it has changed, policy does not allow it, or the last operator
    /// would be gone.
    pub async fn delete_client(
        &self,
        act: Act,
        id: ClientId,
        revision: Option<u64>,
    ) -> Result<(), ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        let dated = Arc::clone(&self.dated);
        self.act(act, "client.delete", &target, move |state, _, now| {
            let before = known(state, &id)?;
            may_change(&operator, Some(&before.settings), None).map_err(Refusal::Denied)?;
            if revision.is_some_and(|revision| revision != before.revision) {
                return Err(Refusal::EtagStale);
            }
            keep_an_operator(state, before, None, now)?;
            let cut = cut_off(state, before, now, latest(&dated, now));
            Ok((vec![Change::RemoveClient(id), cut], ()))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Makes a secret for a client. With `retire_others`, each one that the client has now is revoked once
    /// nobody has used it for this long, and someone a newer one.
    ///
    /// # Errors
    /// When there is no such client, policy does not allow it, or the client has as many as it can have.
    pub async fn create_secret(
        &self,
        act: Act,
        id: ClientId,
        ttl: Option<Duration>,
        retire_others: Option<Duration>,
    ) -> Result<CreatedSecret, ActError> {
        let secret = ClientSecret::generate().map_err(|_| no_randomness())?;
        let hash = SecretHash::of(secret.expose());
        let operator = act.operator.clone();
        let target = id.to_string();
        let committed = self.act(act, "client.secret.create", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_make_credential(&operator, &before.settings).map_err(Refusal::Denied)?;
            let mut client = Client::clone(before);
            // A secret whose time is over makes room for a new one.
            client.secrets.retain(|secret| !secret.has_expired(now));
            if client.secrets.len() >= Client::MAX_SECRETS {
                return Err(Refusal::TooManySecrets);
            }
            if let Some(span) = retire_others {
                for secret in &mut client.secrets {
                    // A use that is noted meanwhile is lost, and does not matter: idle it is since now.
                    *secret = Arc::new(secret.retiring_when_idle(span));
                }
            }
            let created = StoredSecret {
                id: unused_id(before, &hash),
                hash,
                created_at: now,
                expires_at: ttl.map(|ttl| now + ttl),
                last_use: LastUse::default(),
                retire_when_idle: None,
            };
            let info = created.info();
            event.detail = format!("secret {}", created.id);
            if let Some(span) = retire_others {
                event
                    .detail
                    .push_str(&format!("; others retire when idle for {}s", span.as_secs()));
            }
            client.secrets.push(Arc::new(created));
            client.updated_at = now;
            Ok((vec![Change::PutClient(client)], info))
        });
        Ok(match committed.await? {
            Committed::Now(info) => CreatedSecret::New(secret, info),
            Committed::Before(info) => CreatedSecret::Before(info.id),
        })
    }

    /// Revokes one secret of a client: it gets no new tokens with it. The tokens that it has are revoked
    /// with `tokens:revoke` only.
    ///
    /// # Errors
    /// When there is no such client or secret, policy does not allow it, or no operator could
    /// authenticate any more. For the tokens also when the scope is missing, or as
    /// [`Authority::revoke_client_tokens`].
    pub async fn revoke_secret(
        &self,
        act: Act,
        id: ClientId,
        secret: SecretId,
        tokens: TokensSoFar,
    ) -> Result<(), ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        let dated = Arc::clone(&self.dated);
        self.act(act, "client.secret.revoke", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_change(&operator, Some(&before.settings), Some(&before.settings))
                .map_err(Refusal::Denied)?;
            let revokes_tokens = tokens == TokensSoFar::Revoked;
            if revokes_tokens && !operator.holds("tokens:revoke") {
                return Err(Refusal::ScopeMissing("tokens:revoke"));
            }
            let mut client = Client::clone(before);
            client.secrets.retain(|stored| stored.id != secret);
            if client.secrets.len() == before.secrets.len() {
                return Err(Refusal::NoSuchSecret);
            }
            keep_an_operator(state, before, Some(&client), now)?;
            event.detail = format!("secret {secret}");
            client.updated_at = now;
            let cut = revokes_tokens
                .then(|| soon_cut_off(state, before, now, latest(&dated, now)))
                .transpose()?;
            if cut.is_some() {
                event.detail.push_str("; tokens so far");
            }
            Ok(([Change::PutClient(client)].into_iter().chain(cut).collect(), ()))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Revokes every token issued to a client so far. Says before when: new tokens carry that time or
    /// a later one.
    ///
    /// # Errors
    /// When there is no such client (deleting it revoked its tokens), policy does not allow it, it was
    /// done more than a dozen times within seconds, or the clock was set back.
    pub async fn revoke_client_tokens(
        &self,
        act: Act,
        id: ClientId,
    ) -> Result<Timestamp, ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        let dated = Arc::clone(&self.dated);
        self.act(act, "client.tokens.revoke", &target, move |state, _, now| {
            let client = known(state, &id)?;
            let settings = &client.settings;
            may_change(&operator, Some(settings), Some(settings)).map_err(Refusal::Denied)?;
            let latest = latest(&dated, now);
            let cut = soon_cut_off(state, client, now, latest)?;
            Ok((vec![cut], CutOff(cut_time(state, &id, latest))))
        })
        .await
        .map(|committed| committed.into_answer().0)
    }
}

impl ClientPatch {
    fn apply_to(self, settings: &ClientSettings) -> ClientSettings {
        let before = settings.clone();
        ClientSettings {
            description: self.description.unwrap_or(before.description),
            grants: self.grants.unwrap_or(before.grants),
            serves: self.serves.unwrap_or(before.serves),
            max_token_ttl: self.max_token_ttl.unwrap_or(before.max_token_ttl),
            disabled: self.disabled.unwrap_or(before.disabled),
            resources: self.resources.unwrap_or(before.resources),
        }
    }
}

/// Revokes every token issued to a client until now, the latest of them dated no later than `latest`.
/// Those that serve what it was granted are told.
fn cut_off(state: &State, client: &Client, now: Timestamp, latest: Timestamp) -> Change {
    let (id, before) = (client.id.clone(), cut_time(state, &client.id, latest));
    let audiences = client.audiences(now);
    Change::RevokeClient { id, before, until: before + TAIL, audiences }
}

/// Like [`cut_off`], unless new tokens would be dated too far ahead then.
fn soon_cut_off(
    state: &State,
    client: &Client,
    now: Timestamp,
    latest: Timestamp,
) -> Result<Change, Refusal> {
    // A cut now would leave those dated later, and one after them leave the client without any.
    let ahead = latest.since(now);
    if ahead > SKEW_ALLOWANCE {
        return Err(Refusal::DatedAhead(ahead));
    }
    if cut_time(state, &client.id, latest) > now + MOST_AHEAD {
        return Err(Refusal::CutTooOften);
    }
    Ok(cut_off(state, client, now, latest))
}

/// Now, or the latest time that a token was dated with: the clock may have been set back since.
fn latest(dated: &AtomicU64, now: Timestamp) -> Timestamp {
    now.max(Timestamp::from_unix(dated.load(Ordering::Relaxed)))
}

/// A time that every token issued until now is before: the clock's second is not over, and after an
/// earlier cut tokens were dated up to it.
fn cut_time(state: &State, id: &ClientId, now: Timestamp) -> Timestamp {
    let second = Duration::from_secs(1);
    let after_earlier = state.revocations.client(id).map_or(now, |earlier| earlier.before + second);
    after_earlier.max(now + second + SKEW_ALLOWANCE)
}

pub(super) fn known<'a>(state: &'a State, id: &ClientId) -> Result<&'a Arc<Client>, Refusal> {
    state.clients.get(id).ok_or(Refusal::NoSuchClient)
}

/// Refuses a change after which nobody could administer operators, but on the host itself.
pub(super) fn keep_an_operator(
    state: &State,
    before: &Client,
    after: Option<&Client>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let can =
        |client: &Client| can_administer_operators(client) && client.has_usable_credential(now);
    if !can(before) || after.is_some_and(can) {
        return Ok(());
    }
    let another = state.clients.iter().any(|(id, client)| *id != before.id && can(client));
    if another { Ok(()) } else { Err(Refusal::LastOperator) }
}

fn loses_administrative_scope(before: &ClientSettings, after: &ClientSettings) -> bool {
    let holds = |settings: &ClientSettings, scope: &str| {
        settings.grants.scopes(COUNTERSIGN).is_some_and(|scopes| scopes.contains(scope))
    };
    ADMINISTRATIVE_SCOPES.iter().any(|scope| holds(before, scope) && !holds(after, scope))
}

/// The first bits of the hash that name none of the client's secrets yet.
fn unused_id(client: &Client, hash: &SecretHash) -> SecretId {
    let ids = hash
        .as_bytes()
        .windows(4)
        .map(|bytes| SecretId(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])));
    let mut unused = ids.filter(|id| client.secrets.iter().all(|secret| secret.id != *id));
    unused.next().expect("29 ids are more than a client's secrets can take")
}

/// What the audit log says of a client's settings.
fn describe(settings: &ClientSettings) -> String {
    let ClientSettings { description: _, grants, serves, max_token_ttl, disabled, resources } =
        settings;
    let mut parts: Vec<String> = grants
        .as_slice()
        .iter()
        .map(|rule| format!("grant {}: {}", rule.audience, rule.scopes))
        .collect();
    parts.extend(serves.as_slice().iter().map(|audience| format!("serves {audience}")));
    let resources = resources.as_slice().iter();
    parts.extend(resources.map(|alias| format!("resource {}: {}", alias.uri, alias.audience)));
    parts.extend(max_token_ttl.map(|ttl| format!("max_token_ttl {}s", ttl.as_secs())));
    parts.extend(disabled.then(|| "disabled".to_owned()));
    parts.join("; ")
}
