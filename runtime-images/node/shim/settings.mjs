// What the environment says of this instance, read once.

function number(env, name, fallback) {
  const value = Number(env[name] || fallback);
  return Number.isFinite(value) && value > 0 ? value : 0;
}

/** `timeout` in seconds (0 = none), `maxBody` in bytes, `concurrency` calls at once (0 = no limit). */
export function readSettings(env) {
  return Object.freeze({
    handler: env.FAASLITE_HANDLER || '',
    package: env.FAASLITE_PACKAGE || '/var/faaslite/package',
    function: env.FAASLITE_FUNCTION || '',
    namespace: env.FAASLITE_NAMESPACE || '',
    revision: env.FAASLITE_REVISION || '',
    gateway: env.FAASLITE_GATEWAY || 'http://127.0.0.1:8080',
    concurrency: Math.floor(number(env, 'FAASLITE_CONCURRENCY', 0)),
    timeout: number(env, 'FAASLITE_TIMEOUT', 0),
    maxBody: Math.floor(number(env, 'FAASLITE_MAX_BODY', 6 << 20)),
    secrets: env.FAASLITE_SECRETS || '/var/run/secrets/faaslite',
    terminationLog: env.FAASLITE_TERMINATION_LOG || '/dev/termination-log',
    port: number(env, 'PORT', 8080),
  });
}
