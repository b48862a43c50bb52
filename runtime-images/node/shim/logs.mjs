// Standard output and error whose lines carry the id of the call that wrote them.

import { AsyncLocalStorage } from 'node:async_hooks';
import { writeSync } from 'node:fs';
import { format } from 'node:util';

/** The call that runs here and now: `{ id, exchange, partial }`. */
export const current = new AsyncLocalStorage();

export function newLog(id, exchange) {
  return { prefix: id ? `[call ${id}] ` : '', exchange, partial: new Map() };
}

function write(descriptor, text) {
  let data = Buffer.from(text);
  while (data.length) {
    try {
      data = data.subarray(writeSync(descriptor, data));
    } catch (error) {
      if (error.code === 'EPIPE') return; // nobody reads any more
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function take(descriptor) {
  return function (chunk, encoding, callback) {
    const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    const call = current.getStore();
    if (!call?.prefix) {
      write(descriptor, text);
    } else {
      const whole = (call.partial.get(descriptor) ?? '') + text;
      const end = whole.lastIndexOf('\n') + 1;
      if (end) write(descriptor, whole.slice(0, end - 1).split('\n').map((line) => `${call.prefix}${line}\n`).join(''));
      call.partial.set(descriptor, whole.slice(end));
    }
    const done = typeof encoding === 'function' ? encoding : callback;
    if (done) process.nextTick(done);
    return true;
  };
}

/** Write out what a call left without an end of line. */
export function closeLog(call) {
  for (const [descriptor, text] of call.partial) if (text) write(descriptor, `${call.prefix}${text}\n`);
  call.partial.clear();
}

/** Take over the streams of this process. */
export function install() {
  process.stdout.write = take(1);
  process.stderr.write = take(2);
}

/** The stack of a failed call, each line with the call's id; frames of the shim are left out. */
export function writeStack(id, error) {
  const own = new URL('.', import.meta.url).href;
  let stack = "Error: it can't say what it is";
  try {
    stack = error instanceof Error ? String(error.stack) : String(error);
  } catch {
    // Its own code says what it is, and failed as well.
  }
  const lines = stack.split('\n').filter((line) => !line.includes(own) && !line.includes('node:internal'));
  if (error instanceof Error && error.cause !== undefined) lines.push(`cause: ${error.cause}`);
  const prefix = id ? `[call ${id}] ` : '';
  write(2, lines.map((line) => `${prefix}${line}\n`).join(''));
}

function line(level) {
  return (...values) => process.stderr.write(`${level} ${format(...values)}\n`);
}

/** `context.logger`. */
export const logger = Object.freeze({ debug: line('DEBUG'), info: line('INFO'), warn: line('WARNING'), warning: line('WARNING'), error: line('ERROR') });
