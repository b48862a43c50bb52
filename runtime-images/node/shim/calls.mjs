// Calls: admission, deadline, the handler's run, and the reply or the error that it comes to.

import { randomBytes } from 'node:crypto';
import { closeLog, current, newLog, writeStack } from './logs.mjs';
import { Context, Event } from './request.mjs';
import { InvalidResponse, encode, failure, toReply } from './reply.mjs';

const IDLE_MILLISECONDS = 1000;

/** What `node:http` hands its requests to: runs one handler, at most `settings.concurrency` times at once. */
export class Calls {
  #settings;
  #handler;
  #inFlight = 0;
  #draining = false;
  #idle;
  #idleTimer;

  constructor(settings, handler) {
    this.#settings = settings;
    this.#handler = handler;
  }

  /** From now on replies close their connections; `idle` is called once there was no call for a second. */
  drain(idle) {
    this.#draining = true;
    this.#idle = idle;
    if (!this.#inFlight) this.#watchIdle();
  }

  #watchIdle() {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(this.#idle, IDLE_MILLISECONDS);
  }

  /** Headers are here. */
  request(request, response) {
    const target = request.url;
    const exchange = { request, response, callId: request.headers['x-call-id'] ?? '', deadline: null, abort: new AbortController(), over: false };
    if (target.startsWith('/_/')) {
      const path = target.split('?', 1)[0];
      if (path === '/_/ready' || path === '/_/live') return this.#send(exchange, { status: 204, headers: [], body: Buffer.alloc(0) });
    }
    const limit = this.#settings.concurrency;
    if (limit && this.#inFlight >= limit) {
      return this.#send(exchange, failure(503, 'Busy', `this instance has ${limit} calls in flight already`, exchange.callId, true));
    }
    this.#inFlight += 1;
    clearTimeout(this.#idleTimer);
    response.once('close', () => this.#ended(exchange));
    exchange.deadline = this.#deadline(request.headers['x-faaslite-deadline']);
    exchange.callId ||= randomBytes(12).toString('hex');
    this.#read(exchange);
  }

  #deadline(text) {
    const own = this.#settings.timeout ? Date.now() / 1000 + this.#settings.timeout : Infinity;
    const given = text === undefined ? Infinity : Number(text);
    const found = Math.min(own, Number.isNaN(given) ? Infinity : given);
    return Number.isFinite(found) ? found : null;
  }

  #read(exchange) {
    const { request, response } = exchange;
    const most = this.#settings.maxBody;
    if (Number(request.headers['content-length'] ?? 0) > most) return this.#tooLarge(exchange);
    if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue();
    const parts = [];
    let size = 0;
    request.on('data', (part) => {
      size += part.length;
      if (size > most) this.#tooLarge(exchange);
      else parts.push(part);
    });
    request.on('end', () => {
      if (!exchange.over) this.#run(exchange, parts.length === 1 ? parts[0] : Buffer.concat(parts));
    });
  }

  #tooLarge(exchange) {
    if (exchange.over) return;
    exchange.response.shouldKeepAlive = false;
    this.#send(exchange, failure(413, 'PayloadTooLarge', `the body is over ${this.#settings.maxBody} bytes`, exchange.callId));
  }

  async #run(exchange, body) {
    const log = newLog(exchange.callId, exchange);
    const left = exchange.deadline === null ? 0 : Math.max(0, exchange.deadline * 1000 - Date.now());
    const timer = exchange.deadline === null ? undefined : setTimeout(() => this.#late(exchange), Math.min(left, 2 ** 31 - 1));
    try {
      if (exchange.deadline !== null && left === 0) return this.#late(exchange);
      await current.run(log, () => this.#answer(exchange, body));
    } catch (error) {
      this.#fail(exchange, error);
    } finally {
      clearTimeout(timer);
      closeLog(log);
    }
  }

  async #answer(exchange, body) {
    const { request } = exchange;
    const context = new Context(this.#settings, exchange);
    const value = this.#handler.isFetch
      ? await this.#handler.call(asRequest(request, body, exchange.abort.signal), context)
      : await this.#handler.call(new Event(request.method, request.url, request.headers, body), context);
    if (exchange.over) return;
    const reply = toReply(value);
    if (reply.stream === undefined) return this.#send(exchange, reply);
    await this.#stream(exchange, reply);
  }

  /** Send what a stream yields. The status waits for the first part, so that an early failure is a proper error. */
  async #stream(exchange, reply) {
    const { response, request } = exchange;
    const parts = (reply.stream[Symbol.asyncIterator] ?? reply.stream[Symbol.iterator]).call(reply.stream);
    let step = await parts.next();
    if (exchange.over) return;
    const first = step.done ? Buffer.alloc(0) : encode(step.value);
    let next = step.done ? step : parts.next();
    if (reply.whole && (await promptly(next))?.done) return this.#send(exchange, { ...reply, body: first });
    this.#head(exchange, reply, reply.length);
    for (let data = first; !exchange.over; data = encode(step.value)) {
      if (data.length && request.method !== 'HEAD' && !response.write(data)) await drained(response);
      step = await next;
      if (step.done) break;
      next = parts.next();
    }
    if (exchange.over) return void parts.return?.();
    exchange.over = true;
    response.end();
  }

  #head(exchange, reply, length) {
    const { response } = exchange;
    if (this.#draining) response.shouldKeepAlive = false;
    const headers = reply.headers.flat();
    if (length !== undefined) headers.push('content-length', String(length));
    response.sendDate = false;
    response.writeHead(reply.status, headers);
  }

  #send(exchange, reply) {
    if (exchange.over) return;
    exchange.over = true;
    const bare = reply.status === 204 || reply.status === 304;
    this.#head(exchange, reply, bare ? undefined : reply.body.length);
    exchange.response.end(bare || exchange.request.method === 'HEAD' ? undefined : reply.body);
  }

  #late(exchange) {
    if (exchange.over) return;
    if (exchange.response.headersSent) this.#break(exchange);
    else this.#send(exchange, failure(504, 'DeadlineExceeded', "the call's deadline passed before it was answered", exchange.callId));
    exchange.abort.abort(new Error("the call's deadline passed"));
  }

  #fail(exchange, error) {
    const invalid = error instanceof InvalidResponse;
    // Who gets half a reply is told nothing.
    if (!exchange.over && (!invalid || exchange.response.headersSent)) writeStack(exchange.callId, error);
    if (exchange.over) return;
    if (exchange.response.headersSent) return this.#break(exchange);
    const message = invalid ? error.message : said(error);
    this.#send(exchange, failure(500, invalid ? 'InvalidResponse' : 'HandlerError', message, exchange.callId));
  }

  /** The client has to see that the reply is not whole. */
  #break(exchange) {
    exchange.over = true;
    exchange.response.destroy();
  }

  /** The reply is out, or its connection is gone. */
  #ended(exchange) {
    if (!exchange.over) {
      exchange.over = true;
      exchange.abort.abort(new Error('the client is gone'));
    }
    this.#inFlight -= 1;
    if (this.#draining && !this.#inFlight) this.#watchIdle();
  }
}

/** What an error says, which is its own code and may fail as well. */
function said(error) {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "Error: it can't say what it is";
  }
}

/** What a promise comes to, if that is known by now. */
function promptly(promise) {
  return Promise.race([promise, new Promise((resolve) => setImmediate(resolve, undefined))]);
}

function asRequest(request, body, signal) {
  const headers = new Headers();
  for (let at = 0; at < request.rawHeaders.length; at += 2) headers.append(request.rawHeaders[at], request.rawHeaders[at + 1]);
  const scheme = request.headers['x-forwarded-proto'] ?? 'http';
  const host = request.headers['x-forwarded-host'] ?? request.headers.host ?? 'localhost';
  const bare = request.method === 'GET' || request.method === 'HEAD';
  return new Request(new URL(request.url, `${scheme}://${host}`), { method: request.method, headers, body: bare || !body.length ? undefined : body, signal });
}

function drained(response) {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}
