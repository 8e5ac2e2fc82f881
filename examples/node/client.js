// Calls the warehouse, in Python or in JavaScript, with a call of each kind.
//
//     node client.js --server http://127.0.0.1:9001 --credentials picker.toml
//
// Ends with 0 when done, 1 when it failed, 3 when refused, 4 when someone could not be reached.

import { parseArgs, promisify } from 'node:util';

import grpc from '@grpc/grpc-js';

import { target } from './channels.js';
import { findCredentials } from './credentials.js';
import { load, rulesOf } from './protos.js';
import { authenticated } from './tokens.js';

const EXIT_CODES = new Map([
  [grpc.status.UNAUTHENTICATED, 3],
  [grpc.status.PERMISSION_DENIED, 3],
  [grpc.status.UNAVAILABLE, 4],
  [grpc.status.DEADLINE_EXCEEDED, 4],
]);

async function main() {
  const text = { type: 'string' };
  const { values } = parseArgs({
    options: {
      server: text,
      credentials: text,
      // What the .proto says, which proto-loader does not tell.
      audience: { ...text, default: 'stock' },
    },
  });
  if (!values.server) throw new Error('--server is missing');

  const protos = load('stock/v1/stock.proto');
  const rules = rulesOf(protos['stock.v1.StockService']);
  const tokens = await authenticated(findCredentials(values.credentials), values.audience, rules);
  const { StockService } = grpc.loadPackageDefinition(protos).stock.v1;
  const stock = new StockService(...target(values.server), { interceptors: [tokens] });
  await callEach(stock);
  stock.close();
}

async function callEach(stock) {
  const inTime = () => ({ deadline: Date.now() + 10_000 });
  const unary = (method) => promisify(stock[method].bind(stock));

  const { items } = await unary('ListItems')({}, inTime());
  console.log('sold here:', ...items);

  const checked = await unary('CheckStock')({ item: 'tea' }, inTime());
  console.log(`${checked.caller} sees ${checked.count} of tea`);

  const delivered = await new Promise((resolve, reject) => {
    const call = stock.Deliver(inTime(), (error, response) => (error ? reject(error) : resolve(response)));
    for (const count of [5, 7]) call.write({ item: 'tea', count });
    call.end();
  });
  console.log(`${delivered.caller} delivered ${delivered.parcels} parcels`);

  const picks = stock.Pick(inTime());
  for (const count of [2, 10]) picks.write({ item: 'tea', count });
  picks.end();
  for await (const { picked, left } of picks) console.log(`picked ${picked}, left ${left}`);

  for await (const { item, count } of stock.ListStock({}, inTime())) console.log(`${item}: ${count}`);
}

try {
  await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(EXIT_CODES.get(error.code) ?? 1);
}
