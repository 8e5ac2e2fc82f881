//! `policy show`.

use std::fs;
use std::path::Path;

use countersign_build::annotations::{Declared, Rule, ServiceRule, read_file};
use countersign_mesh::guard::{Access, ServicePolicy};
use prost_reflect::DescriptorPool;
use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::output::{Output, View};
use crate::cli::sheet::Sheet;
use crate::rpc::POLICIES;

/// Prints what each method demands: of the services in a descriptor set, or of Countersign's own.
pub fn show(descriptor: Option<&Path>, output: &mut Output<'_>) -> Result<(), Error> {
    let snapshot = match descriptor {
        None => Snapshot::of_policies(POLICIES),
        Some(path) => Snapshot::of_rules(&rules(path, output)?),
    };
    output.show(&snapshot)
}

/// What the services in this file declare.
fn rules(path: &Path, output: &mut Output<'_>) -> Result<Vec<ServiceRule>, Error> {
    let file = path.display();
    let bytes = fs::read(path).map_err(|error| {
        Error::failed(format!("cannot read {file}: {error}"), "correct the path")
    })?;
    let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| {
        Error::failed(
            format!("{file} is not a descriptor set with all of its imports: {error}"),
            "write one with `buf build -o` or `protoc --include_imports --descriptor_set_out`",
        )
    })?;
    if pool.services().len() == 0 {
        return Err(Error::failed(
            format!("{file} describes no service"),
            "give the descriptor set of protos with services",
        ));
    }

    let mut rules = Vec::new();
    let mut mistakes = Vec::new();
    for declared in pool.files().flat_map(|file| read_file(&pool, &file)) {
        let Declared { rule, gaps, mistakes: found } = declared;
        for gap in gaps {
            output.remark(&format!("{gap} (a guard refuses it until then)"))?;
        }
        mistakes.extend(found.iter().map(ToString::to_string));
        rules.push(rule);
    }
    if mistakes.is_empty() {
        Ok(rules)
    } else {
        Err(Error::failed(mistakes.join("; "), "correct the annotations and compile again"))
    }
}

/// A policy table, sorted by path so that two of them can be compared line by line.
#[derive(Serialize)]
struct Snapshot {
    methods: Vec<Method>,
}

#[derive(Serialize)]
struct Method {
    path: String,
    public: bool,
    audience: Option<String>,
    scopes: Vec<String>,
}

impl Snapshot {
    fn of_policies(policies: &[ServicePolicy]) -> Self {
        let method = |policy: &ServicePolicy, path: &str, access| match access {
            Access::Public => Method::public(path.to_owned()),
            Access::Scopes(scopes) => Method {
                path: path.to_owned(),
                public: false,
                audience: Some(policy.audience.to_owned()),
                scopes: scopes.iter().map(ToString::to_string).collect(),
            },
        };
        Self::sorted(policies.iter().flat_map(|policy| {
            policy.methods.iter().map(move |each| method(policy, each.path, each.access))
        }))
    }

    fn of_rules(rules: &[ServiceRule]) -> Self {
        let method = |service: &ServiceRule, name: &str, rule: &Rule| {
            let path = format!("/{}/{name}", service.service);
            match rule {
                Rule::Public => Method::public(path),
                Rule::Scopes(scopes) => Method {
                    path,
                    public: false,
                    audience: Some(service.audience.clone()),
                    scopes: scopes.clone(),
                },
            }
        };
        Self::sorted(rules.iter().flat_map(|service| {
            service.methods.iter().map(move |each| method(service, &each.method, &each.rule))
        }))
    }

    fn sorted(methods: impl Iterator<Item = Method>) -> Self {
        let mut methods: Vec<Method> = methods.collect();
        methods.sort_by(|one, other| one.path.cmp(&other.path));
        Self { methods }
    }
}

impl Method {
    fn public(path: String) -> Self {
        Self { path, public: true, audience: None, scopes: Vec::new() }
    }
}

impl View for Snapshot {
    /// Not aligned: in a diff, one longer line must not change all the others.
    fn human(&self, _: Sheet) -> String {
        let line = |method: &Method| match &method.audience {
            None => format!("{} public\n", method.path),
            Some(audience) => format!("{} {audience} {}\n", method.path, method.scopes.join(" ")),
        };
        self.methods.iter().map(line).collect()
    }
}
