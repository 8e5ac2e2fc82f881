//! The administration of clients and their grants, and the revocation of all tokens of a client.
//!
//! To *cut off* a client is to revoke every token issued to it so far: verifiers then reject its tokens that
//! are dated (`iat`) before the cut. Disabling or deleting a client, or taking an administrative scope away,
//! includes a cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::{COUNTERSIGN, ClientId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::authority::{Act, ActError, Authority, MOST_AHEAD, Refusal, SKEW_ALLOWANCE, TAIL};
use crate::client::{Client, ClientInfo, ClientSettings, Grants, Resources, Serves};
use crate::policy::{ADMINISTRATIVE_SCOPES, Operator, can_administer_operators, may_change};
use crate::store::{AuditEvent, Change, Committed, State};

/// New values for some of a client's settings.
#[derive(Debug, Clone, Default)]
pub struct ClientPatch {
    /// The description.
    pub description: Option<Box<str>>,
    /// The complete new list of grants.
    pub grants: Option<Grants>,
    /// The complete new list of audiences that it serves.
    pub serves: Option<Serves>,
    /// The longest life of its tokens. The inner `None` means the server's default.
    pub max_token_ttl: Option<Option<Duration>>,
    /// Whether it is disabled.
    pub disabled: Option<bool>,
    /// The complete new list of other names of its audiences.
    pub resources: Option<Resources>,
}

/// The time before which a client's tokens were revoked, as the answer to a request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct CutOff(Timestamp);

/// The context in which a change of one client is decided.
pub(super) struct ClientChange<'a> {
    /// Who wants the change.
    pub(super) operator: &'a Operator,
    /// The latest committed state.
    pub(super) state: &'a State,
    /// The client before the change.
    pub(super) before: &'a Client,
    /// When the change is decided.
    pub(super) now: Timestamp,
    /// `now`, or the latest time at which a token was signed if that is later.
    pub(super) latest: Timestamp,
    /// The audit event; the change may add to it.
    pub(super) event: &'a mut AuditEvent,
    /// Further changes to commit with that of the client.
    pub(super) more: Vec<Change>,
}

impl ClientChange<'_> {
    /// Refuses the change if no client could administer operators after it, so that only the host could.
    pub(super) fn keep_an_operator(&self, after: &Client) -> Result<(), Refusal> {
        keep_an_operator(self.state, self.before, Some(after), self.now)
    }
}

impl Authority {
    /// Changes an existing client. `change` gets a copy of the client that already has its new time and
    /// revision, and edits it.
    ///
    /// # Errors
    /// When there is no such client, or `change` refuses.
    pub(super) async fn change_client<T>(
        &self,
        act: Act,
        action: &'static str,
        id: ClientId,
        change: impl FnOnce(&mut Client, &mut ClientChange<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Committed<T>, ActError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let operator = act.operator.clone();
        let target = id.to_string();
        let dated = Arc::clone(&self.dated);
        self.act(act, action, &target, move |state, event, now| {
            let before = known(state, &id)?;
            let revision = state.next_revision();
            let mut client = Client { updated_at: now, revision, ..Client::clone(before) };
            let latest = latest(&dated, now);
            let (operator, more) = (&operator, Vec::new());
            let mut deciding = ClientChange { operator, state, before, now, latest, event, more };
            let answer = change(&mut client, &mut deciding)?;
            let more = deciding.more;
            Ok(([Change::PutClient(client)].into_iter().chain(more).collect(), answer))
        })
        .await
    }

    /// Registers a client, without a credential.
    ///
    /// # Errors
    /// When a client with this id exists, or policy does not allow these settings.
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

    /// Describes one client. `None` when there is none with this id.
    pub fn client(&self, id: &ClientId) -> Option<ClientInfo> {
        self.published.snapshot().state.clients.get(id).map(|client| client.info())
    }

    /// Up to `limit` clients in the order of their ids, starting behind the id `after`; and whether there are
    /// more.
    pub fn clients(&self, after: Option<&ClientId>, limit: usize) -> (Vec<ClientInfo>, bool) {
        let snapshot = self.published.snapshot();
        let all = snapshot.state.clients.iter().map(|(_, client)| client);
        let mut page: Vec<&Arc<Client>> =
            all.filter(|client| after.is_none_or(|after| client.id > *after)).collect();
        let more = page.len() > limit;
        if more {
            // Selects the page before it sorts, so that a hundred thousand clients are not sorted for it.
            page.select_nth_unstable_by(limit, |a, b| a.id.cmp(&b.id));
            page.truncate(limit);
        }
        page.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        (page.into_iter().map(|client| client.info()).collect(), more)
    }

    /// Changes settings of a client, provided that it is still at the revision that the operator read.
    /// Disabling it, or taking an administrative scope away, also revokes every token issued to it so far.
    ///
    /// # Errors
    /// When there is no such client, it has changed since, policy does not allow the change, or no operator
    /// would be left.
    pub async fn update_client(
        &self,
        act: Act,
        id: ClientId,
        revision: u64,
        patch: ClientPatch,
    ) -> Result<ClientInfo, ActError> {
        self.change_client(act, "client.update", id, move |client, change| {
            let ClientChange { state, before, now, .. } = *change;
            client.settings = patch.apply_to(&before.settings);
            // Policy first: whoever may not change the client does not learn whether it has changed.
            may_change(change.operator, Some(&before.settings), Some(&client.settings))
                .map_err(Refusal::Denied)?;
            if before.revision != revision {
                return Err(Refusal::EtagStale);
            }
            client.note_former_audiences(before, now, now + TAIL);
            change.keep_an_operator(client)?;
            change.event.detail = describe(&client.settings);
            let is_disabled = client.settings.disabled && !before.settings.disabled;
            if is_disabled || loses_administrative_scope(&before.settings, &client.settings) {
                // Not `soon_cut_off`, which may refuse: taking rights away must always succeed.
                change.more.push(cut_off(state, before, now, change.latest));
            }
            Ok(client.info())
        })
        .await
        .map(Committed::into_answer)
    }

    /// Deletes a client with its credentials, and revokes every token issued to it so far. If a revision is
    /// given, the client must still be at it.
    ///
    /// # Errors
    /// When there is no such client, it has changed since, policy does not allow the change, or no operator
    /// would be left.
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
            // The cut outlives the client, so that one created later under the same id revives no token.
            let cut = cut_off(state, before, now, latest(&dated, now));
            Ok((vec![Change::RemoveClient(id), cut], ()))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Revokes every token issued to a client so far. Returns the time of the cut: revoked tokens are dated
    /// before it, new ones at it or later.
    ///
    /// # Errors
    /// When there is no such client (deleting it revoked its tokens), policy does not allow it, it was done
    /// more than a dozen times within seconds, or the clock was set back.
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

/// Revokes every token issued to a client so far; none of them is dated later than `latest`. Only verifiers of
/// audiences for which the client can have tokens are told.
fn cut_off(state: &State, client: &Client, now: Timestamp, latest: Timestamp) -> Change {
    let (id, before) = (client.id.clone(), cut_time(state, &client.id, latest));
    let audiences = client.audiences(now);
    Change::RevokeClient { id, before, until: before + TAIL, audiences }
}

/// Does the same as [`cut_off`], but refuses if new tokens would have to be dated too far ahead.
pub(super) fn soon_cut_off(
    state: &State,
    client: &Client,
    now: Timestamp,
    latest: Timestamp,
) -> Result<Change, Refusal> {
    // The clock was set back. A cut at its time would miss tokens that are dated later; a cut behind those
    // would leave the client without tokens until the clock has caught up.
    let ahead = latest.since(now);
    if ahead > SKEW_ALLOWANCE {
        return Err(Refusal::DatedAhead(ahead));
    }
    if cut_time(state, &client.id, latest) > now + MOST_AHEAD {
        return Err(Refusal::CutTooOften);
    }
    Ok(cut_off(state, client, now, latest))
}

/// The later of `now` and the latest time at which a token was signed. The latter is later only after the
/// clock was set back.
fn latest(dated: &AtomicU64, now: Timestamp) -> Timestamp {
    now.max(Timestamp::from_unix(dated.load(Ordering::Relaxed)))
}

/// The time of a cut: every token issued so far is dated before it.
///
/// It lies a second and [`SKEW_ALLOWANCE`] ahead, since tokens can still be issued in the current second. After
/// an earlier cut it lies at least a second behind that one, since tokens were dated at that one.
fn cut_time(state: &State, id: &ClientId, now: Timestamp) -> Timestamp {
    let second = Duration::from_secs(1);
    let after_earlier = state.revocations.client(id).map_or(now, |earlier| earlier.before + second);
    after_earlier.max(now + second + SKEW_ALLOWANCE)
}

fn known<'a>(state: &'a State, id: &ClientId) -> Result<&'a Arc<Client>, Refusal> {
    state.clients.get(id).ok_or(Refusal::NoSuchClient)
}

/// Refuses a change after which no client could administer operators, so that only the host could.
fn keep_an_operator(
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

/// Describes a client's settings for the audit log.
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
