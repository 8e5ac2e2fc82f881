// The JavaScript example's tokens while time passes, against a token service that does as it is told.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { load, rulesOf } from './protos.js';
import { authenticated } from './tokens.js';

const LIFE_NANOS = 600_000_000;
const REFRESH_NANOS = 100_000_000;

let issued = 0;
let isDown = false;
const tokenService = {
  IssueToken(_, answer) {
    if (isDown) return answer({ code: grpc.status.UNAVAILABLE, details: 'down' });
    issued += 1;
    answer(null, {
      access_token: `token ${issued}`,
      expires_in: { seconds: 0, nanos: LIFE_NANOS },
      refresh_in: { seconds: 0, nanos: REFRESH_NANOS },
    });
  },
};

// A warehouse that says with which token it was called.
let seen;
const stock = {
  CheckStock(call, answer) {
    seen = call.metadata.get('authorization')[0];
    answer(null, {});
  },
};

async function serve(service, implementation) {
  const server = new grpc.Server();
  server.addService(service, implementation);
  const insecure = grpc.ServerCredentials.createInsecure();
  return new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', insecure, (error, port) => (error ? reject(error) : resolve(port))),
  );
}

const tokenProtos = load('countersign/v1/token.proto');
const stockProtos = load('stock/v1/stock.proto');
const tokenPort = await serve(tokenProtos['countersign.v1.TokenService'], tokenService);
const stockPort = await serve(stockProtos['stock.v1.StockService'], stock);

const credentials = { url: `http://127.0.0.1:${tokenPort}`, client_id: 'picker', client_secret: 'csec_hush' };
const rules = rulesOf(stockProtos['stock.v1.StockService']);
const tokens = await authenticated(credentials, 'stock', rules);
const { StockService } = grpc.loadPackageDefinition(stockProtos).stock.v1;
const warehouse = new StockService(`127.0.0.1:${stockPort}`, grpc.credentials.createInsecure(), {
  interceptors: [tokens],
});

/** The code of a call, and the token that it carried in `seen`. */
const code = () =>
  new Promise((resolve) => warehouse.CheckStock({}, (error) => resolve(error?.code ?? grpc.status.OK)));

/** Waits until it holds; how long that took is nobody's business. */
async function until(condition) {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, 'it never happens');
    await sleep(5);
  }
}

assert.equal(await code(), grpc.status.OK);
const first = seen;
assert.match(first, /^Bearer token \d+$/);
await until(async () => (await code()) === grpc.status.OK && seen !== first);

isDown = true;
assert.equal(await code(), grpc.status.OK);
await until(async () => (await code()) === grpc.status.UNAVAILABLE);
const last = seen;
isDown = false;
await until(async () => (await code()) === grpc.status.OK);
assert.notEqual(seen, last);
process.exit(0);
