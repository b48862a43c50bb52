// Calls of other functions, with the deadline and the trace of the call that they are made in.

export class CallFailed extends Error {
  constructor(status, reason, message, callId) {
    super(`${reason} (${status}): ${message}`);
    Object.assign(this, { name: 'CallFailed', status, reason, callId });
  }
}

/** `options.namespace`: the caller's own where it isn't given. */
export async function invoke(settings, exchange, prefix, name, payload, options) {
  const headers = {};
  let body;
  if (payload instanceof Uint8Array) {
    [body, headers['content-type']] = [payload, 'application/octet-stream'];
  } else if (typeof payload === 'string') {
    [body, headers['content-type']] = [payload, 'text/plain; charset=utf-8'];
  } else if (payload !== undefined) {
    [body, headers['content-type']] = [JSON.stringify(payload), 'application/json'];
  }
  if (exchange.deadline !== null && prefix === '/function/') headers['x-faaslite-deadline'] = exchange.deadline.toFixed(3);
  if (exchange.request.headers.traceparent) headers.traceparent = exchange.request.headers.traceparent;
  const namespace = options.namespace || settings.namespace || 'default';
  const url = `${settings.gateway}${prefix}${name}.${namespace}/`;
  const reply = await fetch(url, { method: 'POST', headers, body, signal: exchange.abort.signal });
  const kind = reply.headers.get('content-type') ?? '';
  const data = Buffer.from(await reply.arrayBuffer());
  const value = /\bjson\b/.test(kind) && data.length ? JSON.parse(data.toString()) : kind.startsWith('text/') ? data.toString() : data.length ? data : null;
  if (reply.status < 400) return value;
  throw new CallFailed(reply.status, value?.error ?? 'HandlerError', value?.message ?? String(value), value?.callId ?? '');
}
