//! `client update`.

use crate::cli::args::clients::{GrantArg, MaxTtl, ResourceArg, UpdateArgs};
use crate::cli::commands::Server;
use crate::cli::commands::registered::{self, proto_duration};
use crate::cli::connection::request_id;
use crate::cli::error::Error;
use crate::cli::output::Output;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{self, Grant, ResourceAlias, UpdateClientRequest};

/// Reads a client, changes what the flags name, and returns the client as the server has it afterwards.
///
/// # Errors
/// When somebody else changed it in between: the update names the `etag` of what was read.
pub async fn update(
    args: UpdateArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<rpc::Client, Error> {
    if args.is_empty() {
        return Err(Error::usage(
            "there is nothing to change",
            "see: countersign client update --help",
        ));
    }
    let connection = server.connect(output).await?;
    let current = registered::read(args.id.clone(), &connection).await?;
    let (client, paths) = changed(current, args)?;
    let request = UpdateClientRequest {
        client: Some(client),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.into_iter().map(str::to_owned).collect(),
        }),
        request_id: request_id()?,
    };
    let answer = connection
        .answer(ClientServiceClient::new(connection.clone()).update_client(request).await)?;
    Ok(answer.client.unwrap_or_default())
}

/// The client with the changes made, and the names of the changed fields for the update mask.
fn changed(
    mut client: rpc::Client,
    args: UpdateArgs,
) -> Result<(rpc::Client, Vec<&'static str>), Error> {
    let mut paths = Vec::new();
    if let Some(description) = args.description {
        client.description = description;
        paths.push("description");
    }
    if !args.grants.is_empty() {
        client.grants = added(Vec::new(), args.grants);
        paths.push("grants");
    } else if !args.add_grants.is_empty() || !args.remove_grants.is_empty() {
        if let Some(absent) = args
            .remove_grants
            .iter()
            .find(|name| !client.grants.iter().any(|g| g.audience == **name))
        {
            return Err(Error::failed(
                format!("client {} has no grant for {absent}", client.client_id),
                format!("look at: countersign client show {}", client.client_id),
            ));
        }
        client.grants.retain(|grant| !args.remove_grants.contains(&grant.audience));
        client.grants = added(client.grants, args.add_grants);
        paths.push("grants");
    }
    if args.no_serves || !args.serves.is_empty() {
        client.serves = args.serves;
        paths.push("serves");
    } else if !args.add_serves.is_empty() || !args.remove_serves.is_empty() {
        if let Some(absent) = args.remove_serves.iter().find(|it| !client.serves.contains(it)) {
            return Err(Error::failed(
                format!("client {} does not serve {absent}", client.client_id),
                format!("look at: countersign client show {}", client.client_id),
            ));
        }
        client.serves.retain(|audience| !args.remove_serves.contains(audience));
        let new: Vec<_> =
            args.add_serves.into_iter().filter(|it| !client.serves.contains(it)).collect();
        client.serves.extend(new);
        paths.push("serves");
    }
    if args.no_resources || !args.resources.is_empty() {
        client.resources = resources(args.resources, &client.serves)?;
        paths.push("resources");
    }
    if let Some(max_token_ttl) = args.max_token_ttl {
        client.max_token_ttl = match max_token_ttl {
            MaxTtl::Default => None,
            MaxTtl::At(ttl) => Some(proto_duration(ttl)?),
        };
        paths.push("max_token_ttl");
    }
    if args.disable || args.enable {
        client.disabled = args.disable;
        paths.push("disabled");
    }
    Ok((client, paths))
}

/// The resources as the server takes them. A resource that names no audience means the only one that
/// the client serves.
///
/// # Errors
/// When a resource names no audience and the client does not serve exactly one.
pub fn resources(
    resources: Vec<ResourceArg>,
    serves: &[String],
) -> Result<Vec<ResourceAlias>, Error> {
    let alias = |ResourceArg { uri, audience }| match (audience, serves) {
        (Some(audience), _) => Ok(ResourceAlias { uri, audience }),
        (None, [only]) => Ok(ResourceAlias { uri, audience: only.clone() }),
        (None, _) => Err(Error::usage(
            "which audience a resource means is not clear: the client does not serve exactly one",
            "give it as URI=AUDIENCE",
        )),
    };
    resources.into_iter().map(alias).collect()
}

/// The grants with more scopes: one grant an audience, each scope once.
pub fn added(mut grants: Vec<Grant>, more: Vec<GrantArg>) -> Vec<Grant> {
    for GrantArg { audience, scopes } in more {
        let index =
            grants.iter().position(|grant| grant.audience == audience).unwrap_or_else(|| {
                grants.push(Grant { audience, scopes: Vec::new() });
                grants.len() - 1
            });
        for scope in scopes {
            if !grants[index].scopes.contains(&scope) {
                grants[index].scopes.push(scope);
            }
        }
    }
    grants
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::clients::ClientCommand;
    use crate::cli::args::{Cli, Command};

    fn grant(audience: &str, scopes: &[&str]) -> Grant {
        Grant {
            audience: audience.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }

    fn update(flags: &str) -> Result<(rpc::Client, Vec<&'static str>), Error> {
        let line = format!("countersign client update cron {flags}");
        let cli = Cli::try_parse_from(line.split(' ')).expect("the flags parse");
        let Command::Client(ClientCommand::Update(args)) = cli.command else {
            panic!("{line} is an update")
        };
        let current = rpc::Client {
            client_id: "cron".to_owned(),
            grants: vec![grant("inventory", &["a"]), grant("orders", &["b"])],
            serves: vec!["jobs".to_owned()],
            etag: "7".to_owned(),
            ..rpc::Client::default()
        };
        changed(current, args)
    }

    #[test]
    fn an_update_names_what_it_changes_and_keeps_the_etag() {
        let (client, paths) =
            update("--description x --max-token-ttl 10m --disable").expect("the update is valid");
        assert_eq!(paths, ["description", "max_token_ttl", "disabled"]);
        assert!(
            client.disabled
                && client.etag == "7"
                && client.max_token_ttl.is_some_and(|ttl| ttl.seconds == 600)
        );
        let (client, paths) =
            update("--no-serves --enable --max-token-ttl default").expect("the update is valid");
        assert_eq!(paths, ["serves", "max_token_ttl", "disabled"]);
        assert!(client.serves.is_empty() && client.max_token_ttl.is_none() && !client.disabled);
    }

    #[test]
    fn audiences_are_replaced_extended_or_removed() {
        let serves = |flags| update(flags).map(|(client, _)| client.serves);
        assert_eq!(serves("--serves a").expect("valid"), ["a"]);
        assert_eq!(serves("--add-serves a --add-serves jobs").expect("valid"), ["jobs", "a"]);
        assert_eq!(serves("--add-serves a --remove-serves jobs").expect("valid"), ["a"]);
        assert!(matches!(serves("--remove-serves nowhere"), Err(Error::Failed(_))));
    }

    #[test]
    fn a_resource_means_the_only_audience_unless_it_names_one() {
        let alias = |uri: &str, audience: &str| ResourceAlias {
            uri: uri.to_owned(),
            audience: audience.to_owned(),
        };
        let (client, paths) =
            update("--resource a:b --resource c:d=e").expect("the update is valid");
        assert_eq!(paths, ["resources"]);
        assert_eq!(client.resources, [alias("a:b", "jobs"), alias("c:d", "e")]);
        let (client, _) = update("--serves x --resource a:b").expect("the update is valid");
        assert_eq!(client.resources, [alias("a:b", "x")]);
        for unclear in ["--no-serves --resource a:b", "--serves x --serves y --resource a:b"] {
            assert!(matches!(update(unclear), Err(Error::Usage(_))), "{unclear}");
        }
        let (client, paths) = update("--no-resources").expect("the update is valid");
        assert!(client.resources.is_empty() && paths == ["resources"]);
    }

    #[test]
    fn grants_are_replaced_extended_or_removed() {
        let grants = |flags| update(flags).map(|(client, _)| client.grants);
        assert_eq!(grants("--grant c=d").expect("the update is valid"), [grant("c", &["d"])]);
        assert_eq!(
            grants("--add-grant inventory=a,z --add-grant c=d --remove-grant orders")
                .expect("the update is valid"),
            [grant("inventory", &["a", "z"]), grant("c", &["d"])]
        );
        assert!(matches!(grants("--remove-grant nowhere"), Err(Error::Failed(_))));
    }
}
