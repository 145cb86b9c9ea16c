"use strict";
/**
 * A host for agents under test, in Node: no daemon, no sandbox, no waiting.
 *
 *     const { FakeHost, loadAgent } = require("runloop/testing");
 *     const agent = loadAgent(path.join(__dirname, ".."));
 *     assert.deepEqual(agent.run({ ports: { text: ["a b"] } }).value("out"), { words: 2 });
 *
 * Knows: how to run a bundle's source as the runner does (the same modules, in a realm of its own), how to script
 * the answers of host calls. Does not know: policy, quotas, fuel; an agent that passes here may still be refused
 * by the gate.
 */

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

process.env.TZ = "UTC"; // a guest's zone

/** What `time.now` answers unless a test says otherwise. */
const NOW_MS = 1750000000000;
/** What Node has and the sandbox has not. */
const ABSENT = ["Atomics", "Intl", "WebAssembly", "SharedArrayBuffer"];
const LEFT_OUT = ["node_modules", "tests", "build", "dist"];

/** A scripted answer that refuses: the agent sees a HostRefused. */
class Refuse {
  constructor(code, message = "refused", { hint = null, retryable = false } = {}) {
    Object.assign(this, { code, message, hint, retryable });
  }
}

/**
 * Answers host calls from a script: `new FakeHost({"kb.search": {items: []}, "mail.send": new Refuse("no")})`.
 * An answer is a JSON value, a Refuse, or a function of the arguments that returns one. Clock, randomness, log
 * and progress are answered without a script; anything else that is not scripted fails the test.
 */
class FakeHost {
  constructor(answers = {}) {
    this._answers = answers;
    this.calls = [];
    this.unscripted = [];
  }

  /** Arguments of every call of one op, in order. */
  made(op) {
    return this.calls.filter((call) => call.op === op).map((call) => call.args);
  }

  transport(op, payload) {
    const args = JSON.parse(payload);
    this.calls.push({ op, args });
    const answer = this._answer(op, args);
    if (answer instanceof Refuse) return [false, JSON.stringify(answer)];
    return [true, JSON.stringify(answer ?? null)];
  }

  _answer(op, args) {
    if (Object.hasOwn(this._answers, op)) {
      const answer = this._answers[op];
      return typeof answer === "function" ? answer(args) : answer;
    }
    if (op === "time.now") return { now_ms: NOW_MS };
    if (op === "random.bytes") {
      const bytes = Uint8Array.from({ length: args.n }, (_, at) => at % 251);
      return { base64: Buffer.from(bytes).toString("base64") };
    }
    if (op === "log.write" || op === "progress") return {};
    this.unscripted.push(op);
    return new Refuse("test.unscripted", `the test gives no answer for ${op}`);
  }
}

/** How one attempt ended, as the engine would see it. */
class Outcome {
  constructor(ok, answer) {
    this.ok = ok;
    this.ports = answer.ports ?? {};
    this.artifacts = answer.artifacts ?? [];
    this.code = answer.code ?? "";
    this.message = answer.message ?? "";
    this.retryable = answer.retryable ?? false;
  }

  /** The last value on a port; throws with the failure's words where there is none. */
  value(port) {
    const values = this.ports[port] ?? [];
    if (!this.ok || values.length === 0) {
      throw new assert.AssertionError({ message: `nothing on '${port}': ${this.code} ${this.message}` });
    }
    return values[values.length - 1];
  }
}

/** A sandbox's inside in a realm of its own; returns `handle(input)` -> `[ok, text]`. */
function realm(modules, entrypoint, host) {
  const context = vm.createContext({ atob, btoa });
  for (const name of ABSENT) vm.runInContext(`delete globalThis.${name}`, context);
  const loaded = new Map();
  const load = (name) => {
    const file = path.join(__dirname, name.replace(/^\.\//, ""));
    if (!loaded.has(file)) {
      const module = { exports: {} };
      loaded.set(file, module);
      const source = `(function (module, exports, require) {${fs.readFileSync(file, "utf8")}\n})`;
      vm.runInContext(source, context, { filename: file })(module, module.exports, load);
    }
    return loaded.get(file).exports;
  };
  const engine = {
    compile: (file, source) =>
      vm.runInContext(`(function (exports, require, module) {${source}\n})`, context, {
        filename: `<agent>/${file}`,
      }),
    place: (error) => {
      const found = /<agent>\/([^\n:)]+):(\d+)/.exec(String(error.stack));
      return found === null ? null : [found[1], Number(found[2])];
    },
  };
  const source = JSON.stringify({ modules, entrypoint });
  const transport = (op, payload) => (op === "agent.source" ? [true, source] : host.transport(op, payload));
  return load("boot.js").boot(vm.runInContext("globalThis", context), transport, engine);
}

/** A JavaScript agent, loaded from its folder. Every run starts with freshly loaded modules. */
class AgentUnderTest {
  constructor(modules, entrypoint) {
    this.modules = modules;
    this.entrypoint = entrypoint;
  }

  /** One attempt. */
  run({ ports = {}, with: with_ = {}, context = {}, host = new FakeHost() } = {}) {
    const base = { agent: "test", node: "test", attempt: 1, run: "test", trace_id: "test" };
    const given = { op: "handle", ports, with: with_, context: { ...base, ...context }, message: {} };
    return this.runInput(given, host);
  }

  /** One call of a tool; its answer is on port `result`. */
  callTool(tool, args = {}, host = new FakeHost()) {
    return this.runInput({ op: "tool", tool, args, context: {}, message: {} }, host);
  }

  /** What the agent says of its tools. */
  describe() {
    const [ok, text] = realm(this.modules, this.entrypoint, new FakeHost())('{"op":"describe"}');
    if (!ok) throw new assert.AssertionError({ message: `the agent cannot be described: ${text}` });
    return JSON.parse(text);
  }

  /** One attempt on any input, right or wrong. */
  runInput(value, host = new FakeHost()) {
    const [ok, text] = realm(this.modules, this.entrypoint, host)(JSON.stringify(value));
    if (host.unscripted.length > 0) {
      const message = `the agent called ${host.unscripted.join(", ")}, which the test gives no answer for`;
      throw new assert.AssertionError({ message });
    }
    return new Outcome(ok, JSON.parse(text));
  }

  /** One sandbox for many inputs: `handle(text)` -> `[ok, text]`, as the component's export. */
  serve(host) {
    return realm(this.modules, this.entrypoint, host);
  }
}

/**
 * Read an agent from its folder; of TypeScript, what `rlp agent test` compiled. The main module is the one that
 * manifest.toml names.
 */
function loadAgent(folder) {
  const manifest = path.join(folder, "manifest.toml");
  const text = fs.existsSync(manifest) ? fs.readFileSync(manifest, "utf8") : "";
  const named = /^entrypoint\s*=\s*["']([^"'\n]+)["']/m.exec(text.split(/^\[/m)[0]);
  const entrypoint = named === null ? "agent.js" : named[1];
  const built = process.env.RUNLOOP_BUILT ?? folder;
  const modules = {};
  collect(built, "", modules);
  if (modules[entrypoint] === undefined) {
    throw new Error(`${built} has no ${entrypoint}; TypeScript is compiled and tested by 'rlp agent test'`);
  }
  return new AgentUnderTest(modules, entrypoint);
}

function collect(folder, prefix, modules) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const name = prefix + entry.name;
    if (entry.isDirectory() && !entry.name.startsWith(".") && !LEFT_OUT.includes(entry.name)) {
      collect(path.join(folder, entry.name), `${name}/`, modules);
    } else if (entry.isFile() && name.endsWith(".js")) {
      modules[name] = fs.readFileSync(path.join(folder, entry.name), "utf8");
    }
  }
}

// --- tests/cases.toml ---

/** Make a node:test of every case that `rlp agent test` read from tests/cases.toml; none without it. */
function testCases(agent) {
  const { RUNLOOP_CASES } = process.env;
  if (RUNLOOP_CASES === undefined) return;
  const { test } = require("node:test");
  for (const one of JSON.parse(fs.readFileSync(RUNLOOP_CASES, "utf8"))) {
    test(one.name, () => runCase(agent, one));
  }
}

function runCase(agent, { op = "handle", ports = {}, with: with_ = {}, tool, args = {}, host = {}, expect }) {
  const script = Object.entries(host).map(([name, answer]) => [name, refusing(answer)]);
  const fake = new FakeHost(Object.fromEntries(script));
  const outcome = op === "tool" ? agent.callTool(tool, args, fake) : agent.run({ ports, with: with_, host: fake });
  if (expect.error !== undefined) {
    assert.ok(!outcome.ok, `it succeeded; the failure '${expect.error}' was expected`);
    assert.equal(outcome.code, expect.error, outcome.message);
  } else {
    assert.ok(outcome.ok, `${outcome.code}: ${outcome.message}`);
    includes(outcome.ports, expect.ports ?? {}, "ports");
  }
}

function refusing(answer) {
  if (answer === null || typeof answer !== "object" || answer.refuse === undefined) return answer;
  const { code, message, hint, retryable } = answer.refuse;
  return new Refuse(code, message, { hint, retryable });
}

/** Objects may have more than is expected; lists must be as long. */
function includes(found, expected, place) {
  if (Array.isArray(expected) && Array.isArray(found)) {
    assert.equal(found.length, expected.length, `${place}: ${JSON.stringify(found)}`);
    expected.forEach((value, at) => includes(found[at], value, `${place}[${at}]`));
  } else if (isTable(expected) && isTable(found)) {
    for (const [key, value] of Object.entries(expected)) {
      assert.ok(Object.hasOwn(found, key), `${place} has no '${key}'`);
      includes(found[key], value, `${place}.${key}`);
    }
  } else {
    assert.deepStrictEqual(found, expected, place);
  }
}

function isTable(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

module.exports = { AgentUnderTest, FakeHost, NOW_MS, Outcome, Refuse, loadAgent, runCase, testCases };
