// Whom a program speaks as, found where the `countersign` command line finds it.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { parse } from 'smol-toml';

const NAMES = ['url', 'client_id', 'client_secret'];

/** From the file that was named, else from the environment, else from the configuration directory. */
export function findCredentials(named) {
  if (named !== undefined) return read(named);
  const variables = NAMES.map((name) => `COUNTERSIGN_${name.toUpperCase()}`);
  const found = variables.map(variableOrFile);
  if (found.some(Boolean)) {
    // All or none: the secret of one server must not go to another.
    const missing = variables.find((_, at) => !found[at]);
    if (missing) throw new Error(`the environment holds part of the credentials, but not ${missing}`);
    return Object.fromEntries(NAMES.map((name, at) => [name, found[at]]));
  }
  const home = process.env.XDG_CONFIG_HOME || path.join(os.homedir(), '.config');
  const file = path.join(home, 'countersign', 'credentials.toml');
  if (!fs.existsSync(file)) {
    throw new Error(`no credentials: no --credentials, no COUNTERSIGN_CLIENT_ID, and there is no ${file}`);
  }
  return read(file);
}

function read(file) {
  let text;
  const opened = fs.openSync(file, 'r');
  try {
    // Of the open file, not of the path, which could be another one by now.
    if (fs.fstatSync(opened).mode & 0o077) {
      throw new Error(`${file} can be read by others: chmod 600 ${file}`);
    }
    text = fs.readFileSync(opened, 'utf8');
  } finally {
    fs.closeSync(opened);
  }
  let table;
  try {
    table = parse(text);
  } catch {
    // The parser's own message quotes the line, which may be the secret's.
    throw new Error(`${file} is not TOML`);
  }
  const complete = Object.keys(table).sort().join() === [...NAMES].sort().join();
  if (!complete || !Object.values(table).every((value) => typeof value === 'string')) {
    throw new Error(`${file} must have ${NAMES.join(', ')}, and nothing else`);
  }
  return table;
}

function variableOrFile(name) {
  const value = process.env[name];
  const file = process.env[`${name}_FILE`];
  if (value && file) throw new Error(`both ${name} and ${name}_FILE are set`);
  return file ? fs.readFileSync(file, 'utf8').trim() : value;
}
