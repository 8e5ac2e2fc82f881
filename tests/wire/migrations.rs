//! Stores of older versions: their content is still there after the migration, and still works.

use countersign::client::{CertificateNames, PresentedCredential};
use countersign::rpc;
use countersign::rpc::certificate_name::Name;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::issue_token_request::Credential;
use countersign_mesh::keys::SigningKey;
use countersign_mesh::token::sign_assertion;
use rcgen::{CertificateParams, KeyPair};
use rusqlite::{Connection, params};
use tonic::Code;

use crate::caller::{new_credential, seconds};
use crate::support::{ISSUER, TestServer, ask, assert_refused, id, issue_at};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// The tables of credentials in version 2.
const TABLES_OF_VERSION_2: &str = "
    CREATE TABLE secrets (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        secret_id INTEGER NOT NULL,
        hash BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        PRIMARY KEY (client_id, secret_id)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE secrets ADD COLUMN retire_when_idle INTEGER;

    CREATE TABLE client_keys (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        kid TEXT NOT NULL,
        public BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        PRIMARY KEY (client_id, kid)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE client_certificates (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        kind TEXT NOT NULL CHECK (kind IN ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email')),
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        PRIMARY KEY (client_id, kind, name)
    ) STRICT, WITHOUT ROWID;
";

/// Rewrites a store to version 2: three tables of credentials instead of one.
fn back_to_version_2(connection: &Connection) {
    connection.execute_batch(TABLES_OF_VERSION_2).expect("these tables do not exist yet");
    let mut statement = connection
        .prepare(
            "SELECT client_id, credential_id, kind, content, created_at, expires_at, last_used_at,
                    retire_when_idle
             FROM client_credential",
        )
        .expect("the table exists");
    let mut rows = statement.query([]).expect("the row can be read");
    while let Some(row) = rows.next().expect("the row can be read") {
        let text = |column| row.get::<_, String>(column).expect("text");
        let number = |column| row.get::<_, Option<i64>>(column).expect("a number");
        let (client, credential_id, kind) = (text(0), text(1), text(2));
        let content: Vec<u8> = row.get(3).expect("bytes");
        let (made, ends, used, idle) = (number(4), number(5), number(6), number(7));
        let inserted = match kind.as_str() {
            "secret" => {
                let secret = u32::from_str_radix(&credential_id, 16).expect("hexadecimal");
                connection.execute(
                    "INSERT INTO secrets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![client, secret, content, made, ends, used, idle],
                )
            }
            "public_key" => connection.execute(
                "INSERT INTO client_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![client, credential_id, content, made, ends, used],
            ),
            _ => {
                let (kind, name) = credential_id.split_once(':').expect("a kind and a name");
                connection.execute(
                    "INSERT INTO client_certificates VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![client, kind, name, made, ends, used],
                )
            }
        };
        assert_eq!(inserted, Ok(1));
    }
    connection
        .execute_batch("DROP TABLE client_credential; PRAGMA user_version = 2")
        .expect("nothing refers to it");
}

#[tokio::test]
async fn credentials_of_each_kind_are_migrated_from_version_2() {
    let mut server = TestServer::start().await;
    let secret = server.register("order", STOCK, &[]).await;
    let operator = server.operator().await;
    let key = SigningKey::from_seed(&[1; 32]);
    let public_key = Kind::PublicKey(key.public().as_bytes().to_vec());
    operator.add_credential(&server, "order", public_key, Some(3600)).await.expect("added");
    for name in [
        Name::SanDns("order.example".to_owned()),
        Name::SubjectDn(r"CN=a\,b,O=Ex:ample".to_owned()),
        Name::SanUri("spiffe://example/order".to_owned()),
    ] {
        let name = Kind::CertificateName(rpc::CertificateName { name: Some(name) });
        operator.add_credential(&server, "order", name, None).await.expect("added");
    }
    let marking = rpc::CreateClientCredentialRequest {
        retire_others_when_idle: Some(seconds(60)),
        ..new_credential("order", Kind::Secret(rpc::ClientSecret {}))
    };
    let newer = operator.create_credential(&server, marking).await.expect("added").client_secret;
    server.issue(ask("order", &secret, "", &[])).await.expect("the credential works");
    server.advance(1);
    let expected = operator.read(&server, "order").await.expect("the client exists");
    server.stop().await;

    let connection = Connection::open(server.database()).expect("the file is a database");
    // In version 2 the first secret of a store had an id that begins with zeros.
    connection
        .execute(
            "UPDATE client_credential SET credential_id = '00000001' WHERE client_id = 'operator'",
            [],
        )
        .expect("the SQL fits the schema");
    back_to_version_2(&connection);
    drop(connection);
    server.restart().await;

    let operator = server.operator().await;
    let known = operator.read(&server, "operator").await.expect("the client exists");
    assert_eq!(known.credentials[0].credential_id, "00000001");
    let mut known = operator.read(&server, "order").await.expect("the client exists");
    // Credentials that were created in the same second are ordered by their id.
    let in_order = |client: &mut rpc::Client| {
        client.credentials.sort_by(|a, b| a.credential_id.cmp(&b.credential_id));
    };
    let mut expected = expected;
    in_order(&mut known);
    in_order(&mut expected);
    assert_eq!(known, expected);
    assert_eq!(known.credentials.len(), 6);

    for secret in [&secret, &newer] {
        server.issue(ask("order", secret, "", &[])).await.expect("the credential works");
    }
    let wrong = server.issue(ask("order", &server.operator_secret, "", &[])).await;
    assert_refused(wrong, Code::Unauthenticated, "CLIENT_REJECTED");
    server.advance(6);
    let now = server.clock.now();
    let assertion = sign_assertion(&key, &id("order"), ISSUER, now, [1; 16]);
    let credential = Some(Credential::ClientAssertion(assertion.expose().to_owned()));
    let by_key = rpc::IssueTokenRequest { credential, ..ask("order", "", "", &[]) };
    server.issue(by_key).await.expect("the key works");
    for (name, is_good) in [("order.example", true), ("other.example", false)] {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let names =
            CertificateNames::from_der(certificate.der()).expect("the certificate has names");
        let presented = PresentedCredential::Certificate(&names);
        let issued = issue_at(&server.authority(), "order", presented, "", now).await;
        assert_eq!(issued.is_ok(), is_good, "{name}");
    }
    operator.revoke_credential(&server, "order", "san_dns:order.example").await.expect("revoked");

    server.stop().await;
    let connection = Connection::open(server.database()).expect("the file is a database");
    let left: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema
             WHERE name IN ('secrets', 'client_keys', 'client_certificates')",
            [],
            |row| row.get(0),
        )
        .expect("the row can be read");
    assert_eq!(left, 0);
}
