"use strict";
/**
 * Runs an agent from source: loads its CommonJS modules, serves one input, shapes result or failure.
 *
 * Shared by the runner (inside the sandbox) and testing.js (Node's vm), so that both behave alike. Knows nothing
 * of WebAssembly or of where the source comes from; how a module's text becomes a function, and where an error
 * came from, is asked of an engine: `{compile(file, source), place(error, parsing)}`, the latter `[file, line]` or null.
 */

const sdk = require("./index.js");
const { encode, parse, repaired, stringify } = require("./json.js");
const { misfit } = require("./schema.js");

const { Fail, HostRefused, Result, Task } = sdk;
const MAX_MESSAGE = 4000;

/** What to use instead of a name that Node or a browser has. */
const INSTEAD = {
  Buffer: "use Uint8Array, TextEncoder and TextDecoder",
  Intl: "the sandbox has no locales; format by hand",
  WebAssembly: 'ship a component of its own (language = "component")',
  __dirname: "an agent has no files; use host.kbRead(), host.blobRead() and host.putArtifact()",
  process: "an agent sees no process and no environment; use task.param()",
  structuredClone: "use JSON.parse(JSON.stringify(value))",
};

/** A module that cannot be parsed. Only this file makes it, so that no agent's own error looks like one. */
class AgentSyntax extends Error {}

class Program {
  /** `modules`: path -> source; `entrypoint`: one of the paths. */
  constructor(modules, entrypoint, engine) {
    this._modules = new Map(Object.entries(modules));
    this._entrypoint = entrypoint;
    this._engine = engine;
    this._loaded = new Map();
    this._serve = null;
  }

  /** Serve one input: `[true, output]` or `[false, {code, message, retryable}]`, as text. Never throws. */
  handle(input, host, shim) {
    try {
      const answer = this._answer(read(input), host, shim);
      if (shim.awaited()) throw late();
      return [true, answer];
    } catch (error) {
      return [false, errorText(error, (found) => this._place(found))];
    }
  }

  _answer(asked, host, shim) {
    const { op = "handle" } = asked;
    if (!["handle", "tool", "describe"].includes(op)) {
      throw new Fail("abi.op", `this agent cannot do '${op}'`);
    }
    if (this._serve === null) this._serve = this._load();
    if (op === "describe") return encode({ tools: describe(sdk.declared.tools) }, "the description");
    const value = op === "tool" ? this._callTool(asked, host) : this._callHandler(asked, host);
    if (isThenable(value)) throw late();
    if (op === "tool") {
      if (value === undefined) throw new Fail("agent.output", `the tool '${asked.tool}' returned undefined`);
      return Result.of({ result: value }).toOutput();
    }
    return shaped(value).toOutput();
  }

  _callHandler(asked, host) {
    if (typeof this._serve !== "function") {
      throw new Fail("agent.entrypoint", `'${this._entrypoint}' declares no handler: call handler(function)`);
    }
    return this._serve(new Task(asked), host);
  }

  _callTool({ tool, args = {} }, host) {
    const { tools } = sdk.declared;
    const found = tools.get(tool);
    if (found === undefined) {
      const known = [...tools.keys()].sort().join(", ") || "none";
      throw new Fail("abi.tool", `there is no tool '${tool}'; there is ${known}`);
    }
    const wrong = misfit(found.input, args, "args");
    if (wrong) throw new Fail("task.arguments", wrong);
    return found.serve(args, host);
  }

  // --- modules ---

  _load() {
    const exported = this._module(this._entrypoint);
    return sdk.declared.handler ?? (exported === null || exported === undefined ? undefined : exported.handle);
  }

  _module(path) {
    const known = this._loaded.get(path);
    if (known !== undefined) return known.exports;
    const source = this._modules.get(path);
    if (source === undefined) throw new Fail("agent.entrypoint", `the bundle has no file '${path}'`);
    const module = { exports: {} };
    const run = this._compile(path, source);
    this._loaded.set(path, module);
    run.call(module.exports, module.exports, (name) => this._require(name, path), module);
    return module.exports;
  }

  _compile(path, source) {
    try {
      return this._engine.compile(path, source.startsWith("#!") ? `//${source}` : source);
    } catch (error) {
      if (error === null || typeof error !== "object" || error.name !== "SyntaxError") throw error;
      throw new AgentSyntax(`${this._place(error, true) || path}: ${error.message}${esm(source)}`);
    }
  }

  /** `file:line` of the author's own source that an error came from; empty when there is none. */
  _place(error, parsing = false) {
    const found = this._engine.place(error, parsing);
    if (found === null) return "";
    const [file, line] = found;
    return original(this._modules.get(file) ?? "", line) ?? `${file}:${line}`;
  }

  _require(name, from) {
    if (name === "runloop") return sdk;
    const path = resolve(String(name), from, this._modules);
    if (path !== null) return this._module(path);
    const relative = /^\.{1,2}\//.test(name);
    const why = relative
      ? "the bundle has no such .js file"
      : 'an agent has its own files (require("./file.js")) and "runloop"; bundle what else you need into them';
    const error = new Error(`Cannot find module '${name}': ${why}`);
    error.code = "MODULE_NOT_FOUND";
    throw error;
  }
}

/**
 * The line of the source that a line was compiled from, where the compiler left a list of them at the end:
 * `//# runloop-lines=agent.ts:1,0,2,…`, for every line how far its origin is from that of the line before.
 */
function original(source, line) {
  const list = /\n\/\/# runloop-lines=([^\n:]+):([-\d,]+)\s*$/.exec(source);
  if (list === null) return null;
  const steps = list[2].split(",").slice(0, line);
  return `${list[1]}:${steps.reduce((sum, step) => sum + Number(step), 0)}`;
}

/** The path of the module that `name`, required by the module `from`, means; null when there is none. */
function resolve(name, from, modules) {
  if (!/^\.{1,2}(\/|$)/.test(name)) return null;
  const parts = from.split("/").slice(0, -1);
  for (const part of name.split("/")) {
    if (part === "..") {
      if (parts.length === 0) return null; // above the bundle
      parts.pop();
    } else if (part !== "." && part !== "") {
      parts.push(part);
    }
  }
  const path = parts.join("/");
  const candidates = [path, `${path}.js`, path === "" ? "index.js" : `${path}/index.js`];
  return candidates.find((candidate) => modules.has(candidate)) ?? null;
}

/** The input of `handle`, taken apart. Throws a Fail for what is no task. */
function read(text) {
  let value;
  try {
    value = parse(text);
  } catch (error) {
    throw new Fail("abi.input", `the input is not JSON: ${error.message}`);
  }
  if (!isTable(value)) throw new Fail("abi.input", "the input is not a JSON object");
  const asked = { ...value };
  for (const name of ["ports", "with", "context", "message", "args"]) asked[name] = value[name] ?? {};
  const tables = [asked.ports, asked.with, asked.context, asked.message, asked.args];
  if (!tables.every(isTable) || !Object.values(asked.ports).every(Array.isArray)) {
    throw new Fail(
      "abi.input", "the input has no ports, with, context, message and args of the right shape",
    );
  }
  return asked;
}

function isTable(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isThenable(value) {
  return value !== null && typeof value === "object" && typeof value.then === "function";
}

function late() {
  return new Fail(
    "agent.async",
    "the agent waits for a promise, which nothing settles in a sandbox without an event loop; " +
      "host calls answer at once, so leave out async, await and .then()",
  );
}

function shaped(value) {
  if (value instanceof Result) return value;
  if (isTable(value)) {
    const empty = Object.keys(value).find((name) => value[name] === undefined);
    if (empty !== undefined) throw new Fail("agent.output", `the handler left port '${empty}' undefined`);
    return Result.of(value);
  }
  const kind = Array.isArray(value) ? "an array" : value === null ? "null" : typeof value;
  throw new Fail("agent.output", `the handler returned ${kind}, not a Result or an object of ports`);
}

function describe(tools) {
  return [...tools.keys()].sort().map((id) => {
    const { description, input, result } = tools.get(id);
    return { id, description, input_schema: input, result_schema: result };
  });
}

function esm(source) {
  return /^\s*(import\b\s*[\w{*"']|export\b)/m.test(source)
    ? '; an agent is CommonJS: write const { handler } = require("runloop") and exports.name = …, or TypeScript'
    : "";
}

/** Anything thrown as the ABI's error object, naming the agent's own line where there is one. */
function errorText(error, placed) {
  let [code, message, retryable] = ["agent.exception", "", false];
  try {
    if (error instanceof Fail) {
      [code, message, retryable] = [error.code, error.message, error.retryable];
    } else if (error instanceof HostRefused) {
      message = error.hint ? `${error.message}; ${error.hint}` : error.message;
      [code, retryable] = [error.code, error.retryable];
    } else if (error instanceof AgentSyntax) {
      [code, message] = ["agent.syntax", error.message];
    } else if (error instanceof Error) {
      const place = placed(error);
      message = `${error.name}: ${error.message}${instead(error)}${place ? ` (${place})` : ""}`;
    } else {
      message = `the agent threw ${typeof error === "object" ? stringify(error) : String(error)}`;
    }
    code = repaired(String(code));
    message = repaired(String(message).slice(0, MAX_MESSAGE));
  } catch {
    [code, message] = ["agent.exception", "(the exception cannot be shown)"];
  }
  return stringify({ code, message, retryable: retryable === true });
}

function instead(error) {
  const found = error.name === "ReferenceError" ? /^'?(\w+)'? is not defined$/.exec(error.message) : null;
  return found !== null && Object.hasOwn(INSTEAD, found[1]) ? `; ${INSTEAD[found[1]]}` : "";
}

module.exports = { Program, errorText };
