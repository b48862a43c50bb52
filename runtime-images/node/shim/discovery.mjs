// Find the handler in a package and load it, or say in one clear sentence why not.

import { existsSync, readFileSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';

const MODULES = ['handler', 'app', 'main', 'index'];
const SUFFIXES = ['.mjs', '.js', '.cjs'];
const ATTRIBUTES = ['handle', 'handler', 'default', 'app', 'main'];

/** The function can't start; the text is for its author. */
export class StartFailure extends Error {}

function isFile(path) {
  return existsSync(path) && statSync(path).isFile();
}

function fileOf(folder, module) {
  for (const path of [join(folder, module), ...SUFFIXES.map((suffix) => join(folder, module + suffix)), ...SUFFIXES.map((suffix) => join(folder, module, `index${suffix}`))]) {
    if (SUFFIXES.some((suffix) => path.endsWith(suffix)) && isFile(path)) return path;
  }
  return undefined;
}

function findModule(folder) {
  let names;
  try {
    names = readdirSync(folder).sort();
  } catch (error) {
    throw new StartFailure(`the package folder ${folder} can't be read: ${error.code}`);
  }
  for (const module of MODULES) {
    const path = fileOf(folder, module);
    if (path) return path;
  }
  if (names.includes('package.json')) {
    const main = mainOf(join(folder, 'package.json'));
    if (main && isFile(join(folder, main))) return join(folder, main);
  }
  const scripts = names.filter((name) => SUFFIXES.some((suffix) => name.endsWith(suffix)) && !name.startsWith('.'));
  if (scripts.length === 1) return join(folder, scripts[0]);
  const found = scripts.length ? `it has ${scripts.slice(0, 5).join(', ')}` : 'it has no JavaScript file';
  throw new StartFailure(`no handler found in the package: name one as module:function, or call the file one of ${MODULES.map((each) => `${each}.js`).join(', ')} (${found})`);
}

function mainOf(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).main;
  } catch (error) {
    throw new StartFailure(`package.json can't be read: ${error.message}`);
  }
}

/** `(event, context) => ...` or `{ fetch(request, context) }`: `{ call, isFetch }`. Throws StartFailure. */
export async function load(handler, folder) {
  const [module, attribute] = handler.split(':', 2);
  const path = module ? fileOf(folder, module) : findModule(folder);
  const label = `handler ${module || basename(path).replace(/\.[mc]?js$/, '')}${attribute ? `:${attribute}` : ''}`;
  if (!path) throw new StartFailure(`${label}: there is no ${module}.js in the package`);
  const found = await imported(path, label, folder);
  const file = basename(path);
  if (attribute) {
    let value = found;
    for (const name of attribute.split('.')) value = value?.[name] ?? (value === found ? found.default?.[name] : undefined);
    const chosen = runnable(value);
    if (chosen) return chosen;
    throw new StartFailure(value === undefined ? `${label}: ${file} has no function ${attribute}` : `${label}: ${attribute} in ${file} is a ${typeof value}, not a function`);
  }
  for (const name of ATTRIBUTES) {
    const chosen = runnable(found[name]) ?? runnable(found.default?.[name]);
    if (chosen) return chosen;
  }
  throw new StartFailure(`${file} exports no function handle, handler, default (with or without fetch), app or main`);
}

function runnable(value) {
  if (typeof value === 'function') return { call: value, isFetch: false };
  if (typeof value?.fetch === 'function') return { call: value.fetch.bind(value), isFetch: true };
  return undefined;
}

async function imported(path, label, folder) {
  const exit = process.exit;
  process.exit = (code) => {
    throw new StartFailure(`${label}: the module called process.exit(${code ?? ''}) while it was imported${where(new Error(), folder)}`);
  };
  try {
    return await import(pathToFileURL(path).href);
  } catch (error) {
    if (error instanceof StartFailure) throw error;
    console.error(error);
    const name = error?.code === 'ERR_MODULE_NOT_FOUND' || error?.code === 'MODULE_NOT_FOUND' ? 'ModuleNotFound' : (error?.name ?? 'Error');
    const hint = name === 'ModuleNotFound' ? ' (is it in package.json?)' : where(error, folder);
    throw new StartFailure(`${label}: ${name}: ${String(error?.message ?? error).split('\n')[0]}${hint}`);
  } finally {
    process.exit = exit;
  }
}

/** ` (app.js:2)`: where in the package an error comes from. */
function where(error, folder) {
  const roots = [folder, realpathSync(folder)];
  for (const line of String(error?.stack ?? '').split('\n')) {
    const matched = /(?:file:\/\/)?(\/[^\s():]+):(\d+)/.exec(line);
    const root = matched && roots.find((each) => decodeURI(matched[1]).startsWith(`${each}/`));
    if (root) return ` (${relative(root, decodeURI(matched[1]))}:${matched[2]})`;
  }
  return '';
}
