//! `policy show`.

use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::output::Output;
use crate::cli::output::View;
use crate::guard::Access;
use crate::guard::ServicePolicy;
use crate::rpc::POLICIES;

/// Prints what each of Countersign's own methods demands.
pub fn show(output: &mut Output<'_>) -> Result<(), Error> {
    output.show(&Snapshot::of(POLICIES))
}

/// A policy table, made to be compared with another of its kind.
#[derive(Serialize)]
struct Snapshot {
    methods: Vec<Method>,
}

#[derive(Serialize)]
struct Method {
    path: &'static str,
    public: bool,
    audience: Option<&'static str>,
    scopes: &'static [&'static str],
}

impl Snapshot {
    fn of(policies: &[ServicePolicy]) -> Self {
        let methods = policies
            .iter()
            .flat_map(|policy| policy.methods.iter().map(move |method| (policy, method)));
        let mut methods: Vec<Method> = methods
            .map(|(policy, method)| match method.access {
                Access::Public => {
                    Method { path: method.path, public: true, audience: None, scopes: &[] }
                }
                Access::Scopes(scopes) => Method {
                    path: method.path,
                    public: false,
                    audience: Some(policy.audience),
                    scopes,
                },
            })
            .collect();
        methods.sort_by_key(|method| method.path);
        Self { methods }
    }
}

impl View for Snapshot {
    /// Not aligned: one longer line must not change all the others.
    fn human(&self) -> String {
        let line = |method: &Method| match method.audience {
            None => format!("{} public\n", method.path),
            Some(audience) => format!("{} {audience} {}\n", method.path, method.scopes.join(" ")),
        };
        self.methods.iter().map(line).collect()
    }
}
