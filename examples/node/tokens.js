// Attaches to each outgoing call a token for just what its method demands.
//
// Tokens are fetched at the start and refreshed in the background: no call waits for one. While the
// token service is down, calls go on with the tokens at hand for as long as these are good.

import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { target } from './channels.js';
import { proof } from './credentials.js';
import { load } from './protos.js';

const LONGEST_WAIT_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

const { TokenService } = grpc.loadPackageDefinition(load('countersign/v1/token.proto')).countersign.v1;

const millis = ({ seconds, nanos }) => seconds * 1000 + nanos / 1e6;

/** A token for one audience and set of scopes that keeps itself fresh. */
class TokenSource {
  #stub;
  #credentials;
  #request;
  #token;
  #expires = 0;
  #failures = 0;

  constructor(stub, credentials, audience, scopes) {
    this.#stub = stub;
    this.#credentials = credentials;
    this.#request = { client_id: credentials.client_id, audience, scopes };
  }

  /** The token, without waiting, or none when the last one has expired. */
  token() {
    return performance.now() < this.#expires ? this.#token : undefined;
  }

  /**
   * Fetches a token, and the next one in time. Waits for a token service that is not ready; throws when
   * one refuses.
   */
  async start() {
    const deadline = performance.now() + LONGEST_WAIT_MS;
    for (;;) {
      try {
        this.#refreshIn(await this.#fetch());
        return;
      } catch (error) {
        const isOver = performance.now() >= deadline;
        if (isOver || error.code !== grpc.status.UNAVAILABLE) throw error;
      }
      await sleep(FIRST_PAUSE_MS);
    }
  }

  /** Fetches a token and says in how many milliseconds to fetch the next one. */
  async #fetch() {
    // By our own clock, from before we asked: the issuer's may be set differently.
    const asked = performance.now();
    const request = { ...this.#request, ...(await proof(this.#credentials)) };
    const answer = await new Promise((resolve, reject) => {
      const metadata = new grpc.Metadata({ waitForReady: true });
      const options = { deadline: Date.now() + LONGEST_WAIT_MS };
      this.#stub.IssueToken(request, metadata, options, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
    this.#token = answer.access_token;
    this.#expires = asked + millis(answer.expires_in);
    return millis(answer.refresh_in);
  }

  #refreshIn(pause) {
    const refresh = async () => {
      let next;
      try {
        next = await this.#fetch();
        this.#failures = 0;
      } catch (error) {
        console.error(`no new token: ${error.message}`);
        const longest = Math.min(1000 * 2 ** this.#failures, LONGEST_PAUSE_MS);
        next = longest * (0.5 + Math.random() / 2);
        this.#failures += 1;
      }
      this.#refreshIn(next);
    };
    // A program that has nothing else to do may end.
    setTimeout(refresh, pause).unref();
  }
}

/**
 * An interceptor for clients, once there is a token for all that the rules of an audience ask for:
 * `new Client(address, credentials, { interceptors: [await authenticated(..)] })`.
 */
export async function authenticated(credentials, audience, rules) {
  const stub = new TokenService(...target(credentials.url));
  const bySet = new Map();
  const byPath = new Map();
  for (const [path, rule] of rules) {
    if (rule.public) continue;
    const set = rule.scopes.join(' ');
    if (!bySet.has(set)) bySet.set(set, new TokenSource(stub, credentials, audience, rule.scopes));
    byPath.set(path, bySet.get(set));
  }
  await Promise.all([...bySet.values()].map((source) => source.start()));

  return (options, nextCall) => {
    const call = nextCall(options);
    const source = byPath.get(options.method_definition.path);
    // Public, or not a method that these tokens are for.
    if (!source) return new grpc.InterceptingCall(call);
    return new grpc.InterceptingCall(call, {
      start(metadata, listener, next) {
        const token = source.token();
        if (token) metadata.set('authorization', `Bearer ${token}`);
        next(metadata, listener);
        if (!token) call.cancelWithStatus(grpc.status.UNAVAILABLE, 'there is no token for this call');
      },
    });
  };
}
