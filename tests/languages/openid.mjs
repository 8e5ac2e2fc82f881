// npm's openid-client and jose against Countersign, used as their own documentation says.
//
//     node openid.mjs ISSUER CLIENT-ID PRIVATE-KEY < SECRET
//
// The client may call `stock` with `stock:read`, and is it, too. The key is in a PEM file, and registered
// like the secret. Says nothing when all is as it should be.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { createRemoteJWKSet, importPKCS8, jwtVerify } from 'jose';
import * as client from 'openid-client';

const [issuer, clientId, keyFile] = process.argv.slice(2);
const secret = fs.readFileSync(0, 'utf8').trim();
// On loopback, without TLS.
const execute = [client.allowInsecureRequests];
const key = await importPKCS8(fs.readFileSync(keyFile, 'utf8'), 'EdDSA');
const methods = [
  client.ClientSecretBasic,
  client.ClientSecretPost,
  // Whatever the secret: this one proves itself with its key.
  (given) => (given === secret ? client.PrivateKeyJwt(key) : client.ClientSecretPost(given)),
];

/** In its first seconds, a server cannot know which assertions the one before it has seen. */
async function onceItIsReady(fetch) {
  for (;;) {
    try {
      return await fetch();
    } catch (error) {
      if (error.cause?.status !== 503) throw error;
      await sleep(200);
    }
  }
}

for (const algorithm of ['oauth2', 'oidc']) {
  for (const method of methods) {
    const discover = (given) =>
      client.discovery(new URL(issuer), clientId, undefined, method(given), { algorithm, execute });
    const config = await discover(secret);
    const metadata = config.serverMetadata();
    assert.equal(metadata.issuer, issuer);

    const parameters = { scope: 'stock:read', audience: 'stock' };
    const answer = await onceItIsReady(() => client.clientCredentialsGrant(config, parameters));
    assert.equal(answer.scope, 'stock:read');
    assert.ok(answer.expiresIn() > 0);
    assert.equal(answer.refresh_token, undefined);

    const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
    const expected = { issuer, audience: 'stock', typ: 'at+jwt', algorithms: ['EdDSA'] };
    const { payload } = await jwtVerify(answer.access_token, keys, expected);
    assert.equal(payload.client_id, clientId);
    for (const wrong of [{ audience: 'payment' }, { issuer: 'https://elsewhere.example' }, { typ: 'JWT' }]) {
      await assert.rejects(jwtVerify(answer.access_token, keys, { ...expected, ...wrong }), {
        code: 'ERR_JWT_CLAIM_VALIDATION_FAILED',
      });
    }

    const asked = await client.tokenIntrospection(config, answer.access_token);
    assert.equal(asked.active, true);
    assert.equal(asked.client_id, clientId);
    await client.tokenRevocation(config, answer.access_token);
    assert.deepEqual(await client.tokenIntrospection(config, answer.access_token), { active: false });

    await assert.rejects(client.clientCredentialsGrant(config, { scope: 'stock:write' }), {
      error: 'invalid_scope',
    });
    const wrong = client.clientCredentialsGrant(await discover('csec_wrong'), { scope: 'stock:read' });
    // It keeps what a `WWW-Authenticate` challenge says apart from what a body says.
    await assert.rejects(wrong, (error) => {
      assert.equal(error.status ?? error.cause?.status, 401);
      return true;
    });
  }
}
