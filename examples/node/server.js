// A warehouse that serves only callers with a good token.
//
//     node server.js --listen 127.0.0.1:9002 --issuer http://127.0.0.1:9443 \
//         --jwks-url http://127.0.0.1:9443/.well-known/jwks.json --audience stock

import { parseArgs } from 'node:util';

import grpc from '@grpc/grpc-js';

import { isLoopback } from './channels.js';
import { caller, guard, Verifier } from './guard.js';
import { load, rulesOf } from './protos.js';

const LONGEST_GOODBYE_MS = 5_000;

const shelves = new Map([
  ['coffee', 40],
  ['tea', 100],
]);
const countOf = (item) => shelves.get(item) ?? 0;

const stock = {
  CheckStock(call, answer) {
    answer(null, { count: countOf(call.request.item), caller: caller(call).clientId });
  },

  ListStock(call) {
    for (const [item, count] of [...shelves].sort()) call.write({ item, count });
    call.end();
  },

  Deliver(call, answer) {
    let parcels = 0;
    call.on('data', ({ item, count }) => {
      shelves.set(item, countOf(item) + count);
      parcels += 1;
    });
    call.on('end', () => answer(null, { parcels, caller: caller(call).clientId }));
  },

  Pick(call) {
    call.on('data', ({ item, count }) => {
      const picked = Math.min(count, countOf(item));
      const left = countOf(item) - picked;
      shelves.set(item, left);
      call.write({ picked, left });
    });
    call.on('end', () => call.end());
  },

  ListItems(call, answer) {
    answer(null, { items: [...shelves.keys()].sort() });
  },
};

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(2);
}

function options() {
  const text = { type: 'string' };
  const { values } = parseArgs({
    options: {
      listen: { ...text, default: '127.0.0.1:0' },
      issuer: text,
      'jwks-url': text,
      audience: { ...text, default: 'stock' },
    },
  });
  for (const name of ['issuer', 'jwks-url']) {
    if (!values[name]) fail(`--${name} is missing`);
  }
  return values;
}

const { listen, issuer, 'jwks-url': jwksUrl, audience } = options();
const host = listen.slice(0, listen.lastIndexOf(':'));
if (!isLoopback(host)) fail('this example serves plaintext, so only on loopback; put TLS before it');

const service = load('stock/v1/stock.proto')['stock.v1.StockService'];
const server = new grpc.Server({
  interceptors: [guard(new Verifier(issuer, jwksUrl, audience), rulesOf(service))],
});
server.addService(service, stock);
server.bindAsync(listen, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) fail(error.message);
  console.log(`listening on http://${host}:${port}`);
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.tryShutdown(() => process.exit(0));
    setTimeout(() => server.forceShutdown(), LONGEST_GOODBYE_MS).unref();
  });
}
