// Whom a program speaks as, found where the `countersign` command line finds it.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { importPKCS8, SignJWT } from 'jose';
import { parse } from 'smol-toml';

const SECRET = ['url', 'client_id', 'client_secret'];
const KEY = ['url', 'client_id', 'private_key_file', 'issuer'];
// RFC 7523: an assertion says who asks, for this long.
const ASSERTION_LIFE = '60s';

const variable = (name) => `COUNTERSIGN_${name.toUpperCase()}`;

/** From the file that was named, else from the environment, else from the configuration directory. */
export function findCredentials(named) {
  if (named !== undefined) return read(named);
  const found = Object.fromEntries(SECRET.map((name) => [name, variableOrFile(variable(name))]));
  const keyFile = process.env.COUNTERSIGN_CLIENT_KEY_FILE;
  if (keyFile && found.client_secret) {
    throw new Error('both COUNTERSIGN_CLIENT_SECRET and COUNTERSIGN_CLIENT_KEY_FILE are set');
  }
  if (keyFile) {
    delete found.client_secret;
    found.private_key_file = keyFile;
    found.issuer = process.env.COUNTERSIGN_ISSUER;
  }
  if (Object.values(found).some(Boolean)) {
    // All or none: the secret of one server must not go to another.
    const missing = Object.keys(found).find((name) => !found[name]);
    if (missing) {
      throw new Error(`the environment holds part of the credentials, but not ${variable(missing)}`);
    }
    return found;
  }
  const home = process.env.XDG_CONFIG_HOME || path.join(os.homedir(), '.config');
  const file = path.join(home, 'countersign', 'credentials.toml');
  if (!fs.existsSync(file)) {
    throw new Error(`no credentials: no --credentials, no COUNTERSIGN_CLIENT_ID, and there is no ${file}`);
  }
  return read(file);
}

/** What proves, in one request for a token, who asks. Each assertion is good once. */
export async function proof({ client_id, client_secret, private_key_file, issuer }) {
  if (client_secret !== undefined) return { client_secret };
  // Read again each time: a new key may have been rolled out.
  const key = await importPKCS8(readPrivate(private_key_file), 'EdDSA');
  const client_assertion = await new SignJWT()
    .setProtectedHeader({ alg: 'EdDSA' })
    .setIssuer(client_id)
    .setSubject(client_id)
    .setAudience(issuer)
    .setIssuedAt()
    .setExpirationTime(ASSERTION_LIFE)
    .setJti(crypto.randomUUID())
    .sign(key);
  return { client_assertion };
}

function read(file) {
  let table;
  const text = readPrivate(file);
  try {
    table = parse(text);
  } catch {
    // The parser's own message quotes the line, which may be the secret's.
    throw new Error(`${file} is not TOML`);
  }
  const names = (all) => [...all].sort().join();
  const isComplete = [SECRET, KEY].some((all) => names(all) === names(Object.keys(table)));
  if (!isComplete || !Object.values(table).every((value) => typeof value === 'string')) {
    throw new Error(`${file} must have ${SECRET.join(', ')} (or ${KEY.slice(2).join(', ')} in its place)`);
  }
  if (table.private_key_file !== undefined) {
    // Beside the credentials, unless it says otherwise.
    table.private_key_file = path.resolve(path.dirname(file), table.private_key_file);
  }
  return table;
}

function readPrivate(file) {
  const opened = fs.openSync(file, 'r');
  try {
    // Of the open file, not of the path, which could be another one by now.
    if (fs.fstatSync(opened).mode & 0o077) {
      throw new Error(`${file} can be read by others: chmod 600 ${file}`);
    }
    return fs.readFileSync(opened, 'utf8');
  } finally {
    fs.closeSync(opened);
  }
}

function variableOrFile(name) {
  const value = process.env[name];
  const file = process.env[`${name}_FILE`];
  if (value && file) throw new Error(`both ${name} and ${name}_FILE are set`);
  return file ? fs.readFileSync(file, 'utf8').trim() : value;
}
