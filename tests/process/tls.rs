//! TLS as operators set it up, with good files and with bad ones.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::support::{Sandbox, Server};

const SERVE: [&str; 8] = [
    "--data-dir",
    "data",
    "--kek-file",
    "kek",
    "--tls-cert-file",
    "tls.crt",
    "--tls-key-file",
    "tls.key",
];

/// A sandbox with a store and a self-signed certificate for the loopback address.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let issuer = "https://auth.test";
    let init = ["init", "--issuer", issuer, "--url", issuer, "--data-dir", "data"];
    sandbox.run(&[&init[..], &["--kek-file", "kek"]].concat()).ok();
    assert_eq!(sandbox.credential("data/operator.toml", "url"), issuer);
    certify(&sandbox, 4096);
    sandbox
}

fn certify(sandbox: &Sandbox, until: i32) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("a certificate").pem();
    fs::write(sandbox.path("tls.crt"), cert).expect("the file can be written");
    fs::write(sandbox.path("tls.key"), key.serialize_pem()).expect("the file can be written");
    sandbox.set_mode("tls.key", 0o600);
}

/// Writes the operator's credentials for the server, with one more line.
fn credentials(sandbox: &Sandbox, server: &Server, line: &str) {
    let text = sandbox.text("data/operator.toml").replace("https://auth.test", &server.url);
    fs::write(sandbox.path("op.toml"), format!("{text}{line}\n")).expect("the file can be written");
    sandbox.set_mode("op.toml", 0o600);
}

#[test]
fn the_commands_verify_the_server_with_the_authority_of_their_credentials() {
    let sandbox = sandbox();
    let server = sandbox.serve(&SERVE);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let list = ["keys", "list", "--credentials", "op.toml"];
    credentials(&sandbox, &server, "ca_file = \"tls.crt\"");
    sandbox.run(&list).ok();

    credentials(&sandbox, &server, "");
    let mut with_variable = sandbox.program(crate::support::PROGRAM);
    with_variable.args(list).env("COUNTERSIGN_CA_FILE", "tls.crt");
    crate::support::finish(&mut with_variable, "").ok();

    // The file of the authority has no certificate, or does not exist.
    credentials(&sandbox, &server, "ca_file = \"data/operator.toml\"");
    let line = sandbox.run(&list).failed(1);
    assert!(line.contains("data/operator.toml") && line.contains("no certificate in it"), "{line}");
    credentials(&sandbox, &server, "ca_file = \"absent.pem\"");
    let line = sandbox.run(&list).failed(1);
    assert!(line.contains("absent.pem cannot be used"), "{line}");
    let end = server.stop();
    assert!(!end.stderr.contains("WARN"), "{}", end.stderr);
}

#[test]
fn a_bad_tls_file_is_named_with_its_fault() {
    let sandbox = sandbox();
    let good = [sandbox.text("tls.crt"), sandbox.text("tls.key")];
    certify(&sandbox, 4096);
    let other_key = sandbox.text("tls.key");
    let args = [&["serve", "--listen", "127.0.0.1:0"][..], &SERVE].concat();
    let damaged = good[0].replacen("MII", "AII", 1);
    for (cert, key, what) in [
        ("noise", good[1].as_str(), "tls.crt is not PEM"),
        (&good[1], &good[1], "tls.crt holds no certificate"),
        (&damaged, &good[1], "tls.crt holds a bad certificate"),
        (&good[0], "noise", "tls.key is not PEM"),
        (&good[0], &good[0], "tls.key holds no private key"),
        (&good[0], &other_key, "tls.key holds the key of another certificate than tls.crt"),
    ] {
        fs::write(sandbox.path("tls.crt"), cert).expect("the file can be written");
        fs::write(sandbox.path("tls.key"), key).expect("the file can be written");
        let line = sandbox.run(&args).failed(1);
        assert!(line.contains(what), "{what}: {line}");
        assert!(!line.contains("PRIVATE"), "{line}");
    }
    fs::remove_file(sandbox.path("tls.key")).expect("the file can be removed");
    fs::write(sandbox.path("tls.crt"), &good[0]).expect("the file can be written");
    let line = sandbox.run(&args).failed(1);
    assert!(line.contains("cannot read tls.key: No such file"), "{line}");

    fs::write(sandbox.path("tls.key"), &good[1]).expect("the file can be written");
    sandbox.set_mode("tls.key", 0o600);
    let with_ca = [&args[..], &["--tls-client-ca-file", "tls.key"]].concat();
    let line = sandbox.run(&with_ca).failed(1);
    assert!(line.contains("tls.key holds no certificate"), "{line}");
    let line = sandbox.run(&["serve", "--dev", "--tls-cert-file", "c", "--tls-key-file", "k"]);
    assert!(line.failed(2).contains("leave out --dev"));
    let line = sandbox.run(&["serve", "--tls-cert-file", "c"]).failed(2);
    assert!(line.contains("given without tls.key_file (from --tls-cert-file)"), "{line}");
}

#[test]
fn a_doubtful_tls_file_is_used_with_a_warning() {
    let sandbox = sandbox();
    certify(&sandbox, 2020);
    sandbox.set_mode("tls.key", 0o644);
    let log = sandbox.serve(&SERVE).stop().stderr;
    assert!(log.contains("the TLS certificate has expired"), "{log}");
    assert!(log.contains("others on this machine can read the TLS key"), "{log}");
}

#[test]
fn the_commands_present_the_certificate_of_their_credentials() {
    let sandbox = sandbox();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = authority.self_signed(&key).expect("a certificate").pem();
    fs::write(sandbox.path("ca.pem"), ca).expect("the file can be written");
    let authority = Issuer::new(authority, key);
    for name in ["operator", "stranger"] {
        let params = CertificateParams::new([format!("{name}.example")]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &authority).expect("a certificate").pem();
        fs::write(sandbox.path(&format!("{name}.crt")), cert).expect("the file can be written");
        fs::write(sandbox.path(&format!("{name}.key")), key.serialize_pem())
            .expect("the file can be written");
        sandbox.set_mode(&format!("{name}.key"), 0o600);
    }
    let server = sandbox.serve(&[&SERVE[..], &["--tls-client-ca-file", "ca.pem"]].concat());
    credentials(&sandbox, &server, "ca_file = \"tls.crt\"");
    let add = ["client", "credential", "add", "operator", "--certificate-name"];
    sandbox.json("op.toml", &[&add[..], &["san_dns:operator.example"]].concat());

    let list = ["keys", "list", "--credentials", "cert.toml"];
    for (name, good) in [("operator", true), ("stranger", false)] {
        let text = format!(
            "url = \"{}\"\nclient_id = \"operator\"\nca_file = \"tls.crt\"\n\
             client_cert_file = \"{name}.crt\"\nclient_key_file = \"{name}.key\"\n",
            server.url
        );
        fs::write(sandbox.path("cert.toml"), text).expect("the file can be written");
        sandbox.set_mode("cert.toml", 0o600);
        let finished = sandbox.run(&list);
        if good {
            finished.ok();
        } else {
            let line = finished.failed(3);
            assert!(line.contains("CLIENT_REJECTED"), "{line}");
        }
    }
    let plaintext = sandbox.text("cert.toml").replace("https", "http");
    fs::write(sandbox.path("cert.toml"), plaintext).expect("the file can be written");
    let line = sandbox.run(&list).failed(1);
    assert!(line.contains("over TLS only"), "{line}");
    server.stop();
}
