// Refuses calls that come without a good token. Verifies offline: nobody is asked for each call.

import { ServerInterceptingCall, ServerListenerBuilder, ResponderBuilder, status } from '@grpc/grpc-js';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const LONGEST_TOKEN = 4096;
const LONGEST_LIFE_SECONDS = 86_400;
// By how much the issuer's clock and ours may differ.
const LEEWAY_SECONDS = 30;
// Revoked keys leave the key set. Less than the minute for which the issuer lets it be cached.
const REFRESH_MS = 45_000;
// How long calls go on while the issuer cannot be reached.
const KEYS_GOOD_FOR_MS = 3_600_000;

// By the metadata of their calls: nothing that a caller sends can end up in here.
const callers = new WeakMap();

/** Who made a call: `{ clientId, scopes }`. Not for public methods. */
export function caller(call) {
  return callers.get(call.metadata);
}

class Refused extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

const unauthenticated = (reason) => new Refused(status.UNAUTHENTICATED, reason);

/** Verifies the tokens of one issuer for one audience. */
export class Verifier {
  #keys;
  #expected;

  constructor(issuer, jwksUrl, audience) {
    // The address is ours, never one from a token.
    this.#keys = createRemoteJWKSet(new URL(jwksUrl), {
      cacheMaxAge: KEYS_GOOD_FOR_MS,
      cooldownDuration: 5_000,
    });
    this.#expected = {
      issuer,
      audience,
      // Ours, not the token's.
      algorithms: ['EdDSA'],
      // Other JWTs of the same issuer are not access tokens (RFC 9068 section 4).
      typ: 'at+jwt',
      clockTolerance: LEEWAY_SECONDS,
      requiredClaims: ['iss', 'sub', 'client_id', 'aud', 'scope', 'iat', 'exp', 'jti'],
    };
    const refresh = () =>
      this.#keys
        .reload()
        .catch((error) => console.error(`the keys stay as they are: ${error.message}`));
    refresh();
    setInterval(refresh, REFRESH_MS).unref();
  }

  /** Who the token's bearer is. Throws `Refused` with UNAUTHENTICATED, or UNAVAILABLE without keys. */
  async verify(token) {
    if (token.length > LONGEST_TOKEN) throw unauthenticated('the token is invalid');
    let verified;
    try {
      verified = await jwtVerify(token, this.#keys, this.#expected);
    } catch (error) {
      throw refusal(error);
    }
    const { kid, ...others } = verified.protectedHeader;
    const { aud, sub, client_id: clientId, scope, iat, exp } = verified.payload;
    // One audience: no other callee can use the token here. jose would take a list, too, and a token
    // that names no key as long as there is only one.
    const typed = [kid, aud, clientId, scope].every((claim) => typeof claim === 'string');
    // The issuer writes no other header, there is never a user, and no token lives longer than a day.
    const issued =
      Object.keys(others).sort().join() === 'alg,typ' &&
      sub === clientId &&
      exp > iat &&
      exp - iat <= LONGEST_LIFE_SECONDS;
    if (!typed || !issued || iat > Date.now() / 1000 + LEEWAY_SECONDS) {
      throw unauthenticated('the token is invalid');
    }
    return { clientId, scopes: new Set(scope.split(' ')), expires: (exp + LEEWAY_SECONDS) * 1000 };
  }
}

/** Says no more than it has to: the details of a bad token help only whoever forges one. */
function refusal(error) {
  if (error instanceof errors.JWTExpired) return unauthenticated('the token has expired');
  if (error instanceof errors.JWTClaimValidationFailed && error.claim === 'aud') {
    return unauthenticated('the token is for another audience');
  }
  // What fetching the keys ends with, when it does not end well.
  const noKeys = ['ERR_JWKS_TIMEOUT', 'ERR_JOSE_GENERIC', 'ERR_JWKS_INVALID'];
  if (!(error instanceof errors.JOSEError) || noKeys.includes(error.code)) {
    return new Refused(status.UNAVAILABLE, "the issuer's keys are not known yet");
  }
  return unauthenticated('the token is invalid');
}

function bearer(metadata) {
  // Of several, Node keeps the first.
  const [found] = metadata.get('authorization');
  if (!found) throw unauthenticated('there is no token');
  const [, token] = /^bearer (.+)$/i.exec(found) ?? [];
  if (!token) throw unauthenticated('the authorization is not one bearer token');
  return token;
}

/** An interceptor that lets a call through when its token carries what the `.proto` demands. */
export function guard(verifier, rules) {
  async function check(rule, metadata) {
    const who = await verifier.verify(bearer(metadata));
    const missing = rule.scopes.filter((scope) => !who.scopes.has(scope));
    if (missing.length > 0) {
      throw new Refused(status.PERMISSION_DENIED, `the token lacks: ${missing.join(' ')}`);
    }
    return who;
  }

  return (method, call) => {
    const rule = rules.get(method.path);
    if (rule?.public) return new ServerInterceptingCall(call);
    const refuse = ({ code, message }) => call.sendStatus({ code, details: message });
    // A stream can outlive the token that opened it: its next message, either way, is then refused.
    let expires = Infinity;
    const passOn = (message, next) =>
      Date.now() > expires ? refuse(unauthenticated('the token has expired')) : next(message);

    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        if (!rule) {
          refuse(new Refused(status.UNIMPLEMENTED, 'the method declares no rule'));
          return;
        }
        check(rule, metadata).then(
          (who) => {
            expires = who.expires;
            callers.set(metadata, who);
            next(metadata);
          },
          (refused) => refuse(refused),
        );
      })
      .withOnReceiveMessage(passOn)
      .build();
    const responder = new ResponderBuilder()
      .withStart((next) => next(listener))
      .withSendMessage(passOn)
      .build();
    return new ServerInterceptingCall(call, responder);
  };
}
