// From what a handler returns to what goes over the wire.

import { Readable } from 'node:stream';

const FRAMING = new Set(['content-length', 'transfer-encoding', 'connection', 'keep-alive', 'upgrade']);

/** The handler returned what can't be turned into a reply. */
export class InvalidResponse extends Error {}

function kindOf(value) {
  return value?.constructor?.name ?? typeof value;
}

/**
 * `{ status, headers: [[name, value]], body: Buffer | undefined, stream: AsyncIterable | undefined }`;
 * `whole`: a body of one part may be sent with its length. Throws InvalidResponse.
 */
export function toReply(value) {
  if (value === undefined || value === null) return { status: 204, headers: [], body: Buffer.alloc(0) };
  if (typeof value === 'string') return plain('text/plain; charset=utf-8', Buffer.from(value));
  if (value instanceof Uint8Array) return plain('application/octet-stream', Buffer.from(value.buffer, value.byteOffset, value.byteLength));
  if (value instanceof ArrayBuffer) return plain('application/octet-stream', Buffer.from(value));
  if (value instanceof Response) return ofResponse(value);
  if (value instanceof ReadableStream || value instanceof Readable || typeof value?.[Symbol.asyncIterator] === 'function' || isGenerator(value)) {
    return { status: 200, headers: [['content-type', 'application/octet-stream']], stream: value };
  }
  if (value instanceof Map || value instanceof Set || typeof value === 'function' || typeof value === 'symbol') {
    throw new InvalidResponse(`the handler returned a ${kindOf(value)} that can't be sent`);
  }
  try {
    return plain('application/json', Buffer.from(JSON.stringify(value)));
  } catch (error) {
    throw new InvalidResponse(`the handler returned a ${kindOf(value)} that can't be sent: ${error.message.split('\n')[0]}`);
  }
}

function isGenerator(value) {
  return typeof value?.next === 'function' && typeof value[Symbol.iterator] === 'function';
}

function plain(kind, body) {
  return { status: 200, headers: [['content-type', kind]], body };
}

function ofResponse(value) {
  if (value.status < 200) throw new InvalidResponse(`the handler returned the status ${value.status}; it must be from 200 to 599`);
  const headers = [...value.headers].filter(([name]) => !FRAMING.has(name) && name !== 'set-cookie');
  headers.push(...value.headers.getSetCookie().map((each) => ['set-cookie', each]));
  const length = Number(value.headers.get('content-length') ?? NaN);
  return value.body ? { status: value.status, headers, stream: value.body, whole: true, length: Number.isFinite(length) ? length : undefined } : { status: value.status, headers, body: Buffer.alloc(0) };
}

/** A part of a stream as bytes. Throws InvalidResponse. */
export function encode(part) {
  if (typeof part === 'string') return Buffer.from(part);
  if (part instanceof Uint8Array) return part;
  throw new InvalidResponse(`the handler yielded a ${kindOf(part)}; parts are strings or bytes`);
}

/** An error of the protocol. */
export function failure(status, reason, message, callId, busy = false) {
  const headers = [['content-type', 'application/json'], ['x-call-id', callId]];
  if (busy) headers.push(['x-faaslite-busy', '1']);
  return { status, headers, body: Buffer.from(JSON.stringify({ error: reason, message, callId })) };
}
