// Channels and addresses. Whoever reads along has the secret, so plaintext stays on loopback.

import fs from 'node:fs';
import net from 'node:net';

import grpc from '@grpc/grpc-js';

/** Whether what is sent there stays on this machine. */
export function isLoopback(host) {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  return bare === 'localhost' || bare === '::1' || (net.isIPv4(bare) && bare.startsWith('127.'));
}

/** Where to connect, and with what: `https://..`, or `http://..` on loopback. */
export function target(url) {
  const { protocol, hostname, port, host } = new URL(url);
  if (protocol === 'https:') {
    // Node's own certificate authorities, unless another one is named.
    const file = process.env.COUNTERSIGN_CA_FILE;
    const roots = file ? fs.readFileSync(file) : null;
    return [port ? host : `${host}:443`, grpc.credentials.createSsl(roots)];
  }
  if (protocol !== 'http:' || !isLoopback(hostname)) {
    throw new Error(`${url} is neither https:// nor http:// on loopback`);
  }
  return [port ? host : `${host}:80`, grpc.credentials.createInsecure()];
}
