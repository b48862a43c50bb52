// What a handler is given: the event, and its context.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { invoke } from './outgoing.mjs';
import { logger } from './logs.mjs';

/** A call's request. `query` has the last value of each name; `body` is a Buffer. */
export class Event {
  constructor(method, target, headers, body) {
    this.method = method;
    this.target = target;
    this.headers = headers;
    this.body = body;
  }

  get path() {
    const raw = this.target.split('?', 1)[0];
    try {
      return decodeURIComponent(raw);
    } catch {
      return raw;
    }
  }

  get query() {
    const at = this.target.indexOf('?');
    return Object.fromEntries(new URLSearchParams(at < 0 ? '' : this.target.slice(at + 1)));
  }

  get text() {
    return this.body.toString();
  }

  /** The body as JSON; null where it is empty. */
  json() {
    return this.body.length ? JSON.parse(this.body.toString()) : null;
  }
}

/** The function's secrets by `secret/key`, read from their files at each use; a bare key where just one secret has it. */
export class Secrets {
  #folder;

  constructor(folder) {
    this.#folder = folder;
  }

  keys() {
    const list = (path) => {
      try {
        return readdirSync(path).filter((name) => !name.startsWith('.')).sort();
      } catch (error) {
        if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
        throw error;
      }
    };
    return list(this.#folder).flatMap((secret) => list(join(this.#folder, secret)).map((key) => `${secret}/${key}`));
  }

  /** The value; undefined where there is none, or more than one. */
  get(name) {
    const found = this.keys().filter((each) => each === name || (!name.includes('/') && each.endsWith(`/${name}`)));
    return found.length === 1 ? readFileSync(join(this.#folder, found[0]), 'utf8') : undefined;
  }
}

/** What a handler may know of its call. `deadline` is seconds since the epoch, null where there is none; `signal` aborts with it. */
export class Context {
  #settings;
  #exchange;

  constructor(settings, exchange) {
    this.#settings = settings;
    this.#exchange = exchange;
    this.callId = exchange.callId;
    this.deadline = exchange.deadline;
    this.signal = exchange.abort.signal;
    this.logger = logger;
  }

  get function() {
    return this.#settings.function;
  }

  get namespace() {
    return this.#settings.namespace;
  }

  get revision() {
    return this.#settings.revision;
  }

  get secrets() {
    return new Secrets(this.#settings.secrets);
  }

  /** Seconds left until the deadline; null where there is none. */
  remaining() {
    return this.deadline === null ? null : Math.max(0, this.deadline - Date.now() / 1000);
  }

  /** Call another function and wait: what it returned. */
  call(name, payload, options = {}) {
    return invoke(this.#settings, this.#exchange, '/function/', name, payload, options);
  }

  /** Have another function called in the background: `{ callId }`. */
  spawn(name, payload, options = {}) {
    return invoke(this.#settings, this.#exchange, '/async-function/', name, payload, options);
  }
}
