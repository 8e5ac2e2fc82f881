//! The schema, and the steps that migrate a database to it. Each step is one transaction; `PRAGMA user_version`
//! counts the steps that are done.

use rusqlite::{Connection, TransactionBehavior};

/// The `PRAGMA application_id` that marks the file as a Countersign store: "CSGN" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x4353_474e;

/// The version of the schema that this program reads and writes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// The step at index `n` migrates version `n` to `n + 1`. Steps are never edited, only added: stores exist that
/// went through them.
const STEPS: [&str; 3] = ["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

    -- Grants and audiences are JSON: they are only ever read and written as a whole.
    CREATE TABLE clients (
        client_id TEXT PRIMARY KEY,
        description TEXT NOT NULL,
        grants TEXT NOT NULL,
        serves TEXT NOT NULL,
        max_token_ttl INTEGER,
        disabled INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE secrets (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        secret_id INTEGER NOT NULL,
        hash BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        PRIMARY KEY (client_id, secret_id)
    ) STRICT, WITHOUT ROWID;

    -- sealed: the private key, only while it may still be needed.
    CREATE TABLE keys (
        kid TEXT PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired', 'revoked')),
        public BLOB NOT NULL,
        sealed BLOB CHECK ((sealed IS NOT NULL) = (state IN ('next', 'active'))),
        created_at INTEGER NOT NULL,
        activated_at INTEGER,
        ended_at INTEGER,
        gone_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX one_next_one_active ON keys (state) WHERE state IN ('next', 'active');

    CREATE TABLE revoked_tokens (token_id TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    -- No reference to clients: a revocation outlives its client.
    CREATE TABLE revoked_clients (
        client_id TEXT PRIMARY KEY,
        before INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE requests (
        actor TEXT NOT NULL,
        request_id TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        answer TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (actor, request_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_time ON requests (at);

    CREATE TABLE audit (
        sequence INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        outcome TEXT NOT NULL,
        peer TEXT NOT NULL,
        count INTEGER NOT NULL,
        detail TEXT NOT NULL,
        mac BLOB NOT NULL
    ) STRICT;
", "
    -- Other names of the audiences that a client serves, and the audiences that it was granted until
    -- lately; JSON.
    ALTER TABLE clients ADD COLUMN resources TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE clients ADD COLUMN former_audiences TEXT NOT NULL DEFAULT '[]';

    -- Seconds without use after which a secret is revoked.
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

    -- Who is told of a revocation, and since which epoch. No audience: everyone.
    ALTER TABLE revoked_tokens ADD COLUMN audience TEXT;
    ALTER TABLE revoked_tokens ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE revoked_clients ADD COLUMN audiences TEXT;
    ALTER TABLE revoked_clients ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
", "
    -- What clients prove themselves with. The kind says what the content is: of a secret its SHA-256, of a
    -- public key its 32 bytes, of a certificate name its text. No CHECK of the kind: more will come.
    CREATE TABLE client_credential (
        client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
        credential_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        content BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        last_used_at INTEGER,
        retire_when_idle INTEGER,
        PRIMARY KEY (client_id, credential_id)
    ) STRICT, WITHOUT ROWID;

    INSERT INTO client_credential
        SELECT client_id, printf('%08x', secret_id), 'secret', hash,
               created_at, expires_at, last_used_at, retire_when_idle
        FROM secrets;
    INSERT INTO client_credential
        SELECT client_id, kid, 'public_key', public, created_at, expires_at, last_used_at, NULL
        FROM client_keys;
    INSERT INTO client_credential
        SELECT client_id, kind || ':' || name, 'certificate_name', CAST(kind || ':' || name AS BLOB),
               created_at, expires_at, last_used_at, NULL
        FROM client_certificates;

    DROP TABLE secrets;
    DROP TABLE client_keys;
    DROP TABLE client_certificates;
"];

/// Migrates an empty database, or one of an older version, to [`VERSION`].
pub(super) fn migrate(connection: &mut Connection, from: i32) -> rusqlite::Result<()> {
    for (version, step) in (from + 1..).zip(STEPS.iter().skip(from as usize)) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
