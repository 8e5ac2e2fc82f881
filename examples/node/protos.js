// The protos, and what they demand of those who call. Nothing is generated: they are read at the start.

import { fileURLToPath } from 'node:url';

import protoLoader from '@grpc/proto-loader';

const INCLUDES = ['../proto', '../../proto'].map((path) =>
  fileURLToPath(new URL(path, import.meta.url)),
);
const AUTH = '(countersign.v1.auth)';

/** The services of a `.proto`, by their full names. */
export function load(file) {
  return protoLoader.loadSync(file, {
    includeDirs: INCLUDES,
    keepCase: true,
    longs: Number,
    defaults: true,
  });
}

/**
 * What a service's methods demand, by the path under which they are called: `{ public, scopes }`.
 *
 * Both sides read it: the server to refuse, the client to ask for no more than each method needs.
 */
export function rulesOf(service) {
  const rules = new Map();
  for (const method of Object.values(service)) {
    const declared = method.options[AUTH] ?? {};
    // A repeated option is a list only from its second value on.
    const scopes = [declared.scopes ?? []].flat().sort();
    const isPublic = declared.public === true;
    if (isPublic === scopes.length > 0) {
      throw new Error(`${method.path} must be either public or demand scopes`);
    }
    rules.set(method.path, { public: isPublic, scopes });
  }
  return rules;
}
