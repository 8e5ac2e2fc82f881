//! The admin script and the partner's CRM, against the APIs that they call.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::Value;

use crate::mesh::{Mesh, run, source};
use crate::support::Finished;
use crate::tools::{Tools, example, program, shell, tools};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A script whose credentials are in the environment.
fn speaking_as(mut command: Command, url: &str, id: &str, secret: &str) -> Command {
    command.env("COUNTERSIGN_URL", url).env("COUNTERSIGN_CLIENT_ID", id);
    command.env("COUNTERSIGN_CLIENT_SECRET", secret);
    command
}

fn cleanup(mesh: &Mesh, api: &str, id: &str, secret: &str) -> Finished {
    let script = Command::new(source("examples/cleanup.sh"));
    run(mesh, speaking_as(script, &mesh.countersign.url, id, secret), &[api], "")
}

#[test]
fn the_admin_script_does_what_it_may_and_says_why_when_it_may_not() {
    let (Some(admin), Some(())) = (example("admin_api"), shell()) else { return };
    let mesh = Mesh::start();
    mesh.register("cleanup", &["--grant", "admin=admin:cleanup"]);
    mesh.register("reader", &["--grant", "admin=admin:read"]);
    mesh.register("stranger", &["--grant", "elsewhere=admin:cleanup"]);
    let admin = mesh.serve(admin, "admin");
    let secret = mesh.secret("cleanup");

    let done = cleanup(&mesh, &admin.url, "cleanup", &secret).ok();
    let done: Value = serde_json::from_str(&done).expect("the API answers with JSON");
    assert_eq!(done["removed"], 3);

    let told = cleanup(&mesh, &admin.url, "cleanup", "csec_wrong").failed(3);
    assert!(told.contains("invalid_client"), "{told}");
    let told = cleanup(&mesh, &admin.url, "reader", &mesh.secret("reader")).failed(3);
    assert!(told.contains("invalid_scope"), "{told}");
    let told = cleanup(&mesh, &admin.url, "stranger", &mesh.secret("stranger")).failed(3);
    assert!(told.contains("refused the token: HTTP 401"), "{told}");

    let unreachable = cleanup(&mesh, NOWHERE, "cleanup", &secret);
    assert_eq!(unreachable.code, Some(4), "{unreachable:?}");
    assert!(unreachable.stderr.contains("http://127.0.0.1:1 cannot be reached"), "{unreachable:?}");
    let script = Command::new(source("examples/cleanup.sh"));
    let unreachable =
        run(&mesh, speaking_as(script, NOWHERE, "cleanup", &secret), &[&admin.url], "");
    assert_eq!(unreachable.code, Some(4), "{unreachable:?}");
    admin.kill();
}

#[test]
fn the_admin_script_tells_what_it_lacks() {
    let Some(()) = shell() else { return };
    let mesh = Mesh::start();
    let script = || Command::new(source("examples/cleanup.sh"));
    assert!(run(&mesh, script(), &[], "").failed(2).contains("usage: "));
    assert!(run(&mesh, script(), &[NOWHERE], "").failed(2).contains("set COUNTERSIGN_URL"));
    // No quote of a secret can end curl's setting and begin another.
    let odd = speaking_as(script(), NOWHERE, "cleanup", "x\"\noutput = \"stolen");
    run(&mesh, odd, &[NOWHERE], "").failed(2);

    let bin = mesh.sandbox.path("bin");
    fs::create_dir(&bin).expect("it is not there yet");
    for tool in ["bash", "curl"] {
        symlink(program(tool).expect("it was there before"), bin.join(tool)).expect("it is new");
    }
    let mut without_jq = Command::new("bash");
    without_jq.arg(source("examples/cleanup.sh")).env("PATH", &bin);
    assert!(run(&mesh, without_jq, &[NOWHERE], "").failed(2).contains("jq is not installed"));
}

#[test]
fn the_admin_script_shows_no_secret_to_those_who_list_processes() {
    let (Some(admin), Some(())) = (example("admin_api"), shell()) else { return };
    let mesh = Mesh::start();
    mesh.register("cleanup", &["--grant", "admin=admin:cleanup"]);
    let admin = mesh.serve(admin, "admin");
    let (bin, seen) = (mesh.sandbox.path("bin"), mesh.sandbox.path("seen"));
    fs::create_dir(&bin).expect("it is not there yet");
    let curl = program("curl").expect("it was there before");
    let spy = format!(
        "#!/bin/sh\n{{ echo \"$@\"; env; }} >> {}\nexec {} \"$@\"\n",
        seen.display(),
        curl.display()
    );
    fs::write(bin.join("curl"), spy).expect("there is room");
    fs::set_permissions(bin.join("curl"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("there is a shell"));

    let secret = mesh.secret("cleanup");
    let mut script = Command::new(source("examples/cleanup.sh"));
    script.env("PATH", path);
    let script = speaking_as(script, &mesh.countersign.url, "cleanup", &secret);
    run(&mesh, script, &[&admin.url], "").ok();
    let seen = fs::read_to_string(seen).expect("curl was called");
    assert!(seen.contains("grant_type=client_credentials"), "{seen}");
    assert!(seen.contains("--request DELETE"), "{seen}");
    for secret in [secret.as_str(), "Bearer", "eyJ"] {
        assert!(!seen.contains(secret), "{seen}");
    }
    admin.kill();
}

/// The CRM's script, or another one that uses it.
fn crm(tools: &Tools, script: &str) -> Command {
    let mut command = Command::new(&tools.python);
    command.arg(source(script)).env("PYTHONPATH", source("examples"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("OAUTHLIB_INSECURE_TRANSPORT", "1");
    command
}

#[test]
fn the_crm_pulls_all_pages_even_when_its_token_expires_in_the_middle() {
    let (Some(customers), Some(tools)) = (example("customers_api"), tools()) else { return };
    let mesh = Mesh::start();
    mesh.register("crm", &["--grant", "customers=read:customers"]);
    mesh.register("writer", &["--grant", "customers=write:customers"]);
    let customers = mesh.serve(customers, "customers");
    let (url, secret) = (&mesh.countersign.url, mesh.secret("crm"));
    let sync = |url: &str, id: &str, secret: &str| {
        let script = crm(&tools, "examples/crm_sync.py");
        run(&mesh, speaking_as(script, url, id, secret), &[&customers.url], "")
    };

    let names: Vec<String> = sync(url, "crm", &secret)
        .ok()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a customer a line"))
        .map(|customer| customer["name"].as_str().expect("all have one").to_owned())
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(names[4], "Frances Allen");

    assert!(sync(url, "crm", "csec_wrong").failed(3).contains("invalid_client"));
    assert!(sync(url, "writer", &mesh.secret("writer")).failed(3).contains("invalid_scope"));
    assert!(sync(NOWHERE, "crm", &secret).failed(4).contains("cannot be reached"));

    let expiry = crm(&tools, "tests/languages/expiry.py");
    run(&mesh, expiry, &[&customers.url, url, "crm"], &secret).ok();
    customers.kill();
}
