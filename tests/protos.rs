//! What is generated from `proto/` and checked in is what would be generated now.
//!
//! `just regenerate` writes the files anew.

use std::fs;
use std::path::{Path, PathBuf};

use countersign::rpc;
use countersign_build::annotations::{MethodRule, Rule, ServiceRule, read_annotations};
use countersign_build::{prost_build, tonic_prost_build};
use countersign_mesh::guard::Access;
use prost_reflect::DescriptorPool;

const PROTOS: [&str; 4] = ["auth", "token", "trust", "admin"];

/// Messages, with their oneofs, that carry a secret or a token; `countersign-mesh` writes their `Debug`
/// by hand.
const SECRET_MESSAGES: [&str; 5] = [
    "countersign.v1.IssueTokenRequest",
    "countersign.v1.IssueTokenResponse",
    "countersign.v1.ValidateTokenRequest",
    "countersign.v1.RevokeTokenRequest",
    "countersign.v1.CreateClientCredentialResponse",
];

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Holds a file against what it should be, or writes it when asked to.
#[track_caller]
fn assert_checked_in(file: &str, expected: &str) {
    let file = path(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, expected).expect("the sources are writable");
    }
    let checked_in = fs::read_to_string(&file).expect("it is checked in");
    assert!(checked_in == expected, "{} is stale: run `just regenerate`", file.display());
}

#[test]
fn messages_and_clients_of_mesh_are_those_of_the_protos() {
    let dir = tempfile::tempdir().expect("the temp directory is writable");
    // Without tonic's transport there is no `connect`, and so no `authenticated`: the session, which makes
    // channels, uses these clients and not the other way round.
    let tonic = tonic_prost_build::configure().build_server(false).build_transport(false);
    let mut prost = prost_build::Config::new();
    prost.skip_debug(SECRET_MESSAGES);
    let protos = PROTOS.map(|name| path(&format!("proto/countersign/v1/{name}.proto")));
    countersign_build::configure()
        .tonic(tonic)
        .prost(prost)
        .out_dir(dir.path())
        .compile(&protos, &[path("proto")])
        .expect("our protos compile");
    let generated = fs::read_to_string(dir.path().join("countersign.v1.rs")).expect("generated");
    assert_checked_in("crates/countersign-mesh/src/rpc/countersign.v1.rs", &generated);
}

#[test]
fn the_annotations_that_build_scripts_find_are_ours() {
    let file = "countersign/v1/auth.proto";
    let ours = fs::read_to_string(path("proto").join(file)).expect("it is there");
    assert_checked_in(&format!("crates/countersign-build/proto/{file}"), &ours);
}

/// What reflection shows to callers is what the guard enforces.
#[test]
fn our_own_descriptors_say_what_our_guard_enforces() {
    let pool = DescriptorPool::decode(rpc::DESCRIPTORS).expect("descriptors");
    let ours = ["token", "trust", "admin"].map(|name| format!("countersign/v1/{name}.proto"));
    let ours = ours.each_ref().map(String::as_str);
    let rules = read_annotations(&pool, &ours).expect("the options are still there");
    let enforced: Vec<ServiceRule> = rpc::POLICIES
        .iter()
        .map(|policy| ServiceRule {
            service: policy.service.to_owned(),
            audience: policy.audience.to_owned(),
            methods: policy
                .methods
                .iter()
                .map(|method| MethodRule {
                    method: method
                        .path
                        .strip_prefix(&format!("/{}/", policy.service))
                        .expect("the path of a method of this service")
                        .to_owned(),
                    rule: match method.access {
                        Access::Public => Rule::Public,
                        Access::Scopes(demanded) => {
                            Rule::Scopes(demanded.iter().map(ToString::to_string).collect())
                        }
                    },
                })
                .collect(),
        })
        .collect();
    assert_eq!(rules, enforced);
    assert!(rules.len() >= 4);
}
