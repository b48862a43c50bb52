// The life of an instance: load the handler, listen, say that it is ready, serve, drain, exit. See runtime-images/PROTOCOL.md.

import { closeSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { Calls } from './calls.mjs';
import { StartFailure, load } from './discovery.mjs';
import { install, writeStack } from './logs.mjs';
import { failure } from './reply.mjs';
import { readSettings } from './settings.mjs';

const BACKLOG = 1024;
const settings = readSettings(process.env);

function giveUp(text) {
  process.stderr.write(`${text}\n`);
  try {
    writeFileSync(settings.terminationLog, Buffer.from(text).subarray(0, 4096));
  } catch (error) {
    process.stderr.write(`the termination log ${settings.terminationLog} can't be written: ${error.code}\n`);
  }
  process.exit(1);
}

function announce() {
  const descriptor = Number(process.env.FAASLITE_READY_FD || NaN);
  if (!Number.isInteger(descriptor)) return;
  try {
    writeSync(descriptor, 'R');
    closeSync(descriptor);
  } catch (error) {
    if (error.code !== 'EPIPE' && error.code !== 'EBADF') throw error; // nobody listens any more: then nobody needs to know
  }
}

function refuse(error, socket) {
  if (!socket.writable) return;
  const large = error.code === 'HPE_HEADER_OVERFLOW';
  const reply = failure(400, 'BadRequest', large ? "the request's line and headers are over 64 KiB" : error.message, '');
  const lines = reply.headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.end(Buffer.concat([Buffer.from(`HTTP/1.1 400 Bad Request\r\n${lines}content-length: ${reply.body.length}\r\nconnection: close\r\n\r\n`), reply.body]));
}

async function main() {
  install();
  process.on('unhandledRejection', (error) => writeStack('', error));
  const handler = await load(settings.handler, settings.package);
  const calls = new Calls(settings, handler);
  const server = createServer({ maxHeaderSize: 64 << 10, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0, noDelay: true });
  for (const each of ['request', 'checkContinue']) server.on(each, (request, response) => calls.request(request, response));
  server.on('clientError', refuse);
  server.on('error', (error) => giveUp(`can't listen on port ${settings.port}: ${error.code}`));
  server.on('listening', () => {
    for (const name of ['SIGTERM', 'SIGINT']) {
      process.on(name, () => {
        calls.drain(() => process.exit(0));
        server.closeIdleConnections();
      });
    }
    announce();
  });
  if (process.env.LISTEN_FDS === '1') server.listen({ fd: 3, backlog: BACKLOG });
  else server.listen({ port: settings.port, host: '0.0.0.0', backlog: BACKLOG });
}

main().catch((error) => giveUp(error instanceof StartFailure ? error.message : `the shim failed: ${error?.stack ?? error}`));
