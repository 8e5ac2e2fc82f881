//! What is written for one service, and for all services of a package.

use crate::annotations::{Rule, ServiceRule};
use crate::emit::{indented, service_policy};

/// How generated code reaches the guard room.
const GUARD: &str = "::countersign_mesh::guard";

/// A service with rules, and what tonic has written for it.
pub struct AnnotatedService {
    /// In Rust's spelling: `HttpGateway`.
    name: String,
    /// As tonic begins the names of modules: `http_gateway`.
    module: String,
    rule: ServiceRule,
    has_client: bool,
    has_server: bool,
}

impl AnnotatedService {
    /// The service that Rust calls `name`, for which tonic has written `written`.
    pub fn new(name: String, rule: ServiceRule, written: &str) -> Self {
        let module = snake_case(&name);
        let has = |line: String| written.lines().any(|written| written.trim() == line);
        // tonic's builder does not tell which options it was given, but its output does. A client
        // without `impl .. <Channel>`, which has `connect`, is to do without tonic's transport.
        let has_client = has(format!("impl {name}Client<tonic::transport::Channel> {{"));
        let has_server = has(format!("pub mod {module}_server {{"));
        Self { name, module, rule, has_client, has_server }
    }

    /// All that is written for this service.
    pub fn items(&self) -> String {
        let mut items = self.policy();
        if self.has_client {
            items.push_str(&self.authenticated());
        }
        if self.has_server {
            items.push_str(&self.guarded());
        }
        items
    }

    fn policy(&self) -> String {
        let Self { module, rule, .. } = self;
        let service = &rule.service;
        let audience = &rule.audience;
        let scopes = all_scopes(rule);
        let policy = indented(&service_policy(rule, GUARD));
        let policy = policy.trim_start();
        format!(
            "/// What `{service}` demands of its callers, from the annotations in its `.proto`.
pub mod {module}_policy {{
    #![allow(dead_code)]
    /// The audience that tokens for this service name.
    pub const AUDIENCE: &str = {audience:?};
    /// Every scope that some method of this service demands.
    pub const SCOPES: &[&str] = &{scopes:?};
    /// What each method demands. A guard refuses those that are not in it.
    pub const POLICY: {GUARD}::ServicePolicy = {policy};
}}
"
        )
    }

    fn authenticated(&self) -> String {
        let Self { name, module, .. } = self;
        format!(
            "#[allow(dead_code, reason = \"not every program uses all of it\")]
impl {module}_client::{name}Client<::countersign_mesh::session::Authenticated<::tonic::transport::Channel>> {{
    /// A client that sends with each call a token for just what the method demands.
    pub fn authenticated(
        channel: ::tonic::transport::Channel,
        session: &::countersign_mesh::session::Session,
    ) -> Self {{
        Self::new(session.attach(channel, &[{module}_policy::POLICY]))
    }}
}}
"
        )
    }

    fn guarded(&self) -> String {
        let Self { name, module, .. } = self;
        format!(
            "#[allow(dead_code, reason = \"not every program uses all of it\")]
impl<T: {module}_server::{name}> {module}_server::{name}Server<T> {{
    /// This service behind a guard that knows its policy: calls that bring less than their method
    /// demands are refused before they get here.
    pub fn guarded(inner: T, guard: &{GUARD}::Guard) -> {GUARD}::Guarded<Self> {{
        guard.wrap(Self::new(inner))
    }}
}}
"
        )
    }
}

/// The policies of these services, which are all of a package's, under one name.
pub fn package_policies(services: &[AnnotatedService]) -> String {
    let policies: String = services
        .iter()
        .map(|service| format!("    {}_policy::POLICY,\n", service.module))
        .collect();
    format!(
        "/// What each service of this package demands of its callers: what a guard is to know.
#[allow(dead_code, reason = \"not every program uses all of it\")]
pub const POLICIES: &[{GUARD}::ServicePolicy] = &[
{policies}];
"
    )
}

/// Sorted, each once.
fn all_scopes(rule: &ServiceRule) -> Vec<&str> {
    let mut scopes: Vec<&str> = rule
        .methods
        .iter()
        .flat_map(|method| match &method.rule {
            Rule::Public => &[][..],
            Rule::Scopes(scopes) => scopes,
        })
        .map(String::as_str)
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// tonic's own conversion of names, letter by letter, so that we find its modules.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}
