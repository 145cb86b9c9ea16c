/**
 * The runner: one component that executes the source of any JavaScript agent.
 *
 * Knows: the component's import and export, and how this engine (QuickJS) compiles text and tells where an error
 * came from. What an agent is lives in ../runloop. Everything at module level runs at build time and is frozen
 * into the component's memory image. build.py puts the modules of ../runloop in place of the line below.
 */
import gate from "runloop:agent/host@0.1.0";

const SDK = {/* modules */};
const loaded = {};

function require(name) {
  const key = name.replace("./", "");
  if (loaded[key] === undefined) {
    loaded[key] = { exports: {} };
    SDK[key](loaded[key], loaded[key].exports, require);
  }
  return loaded[key].exports;
}

const call = gate.call;
const evaluate = globalThis.eval;

function transport(op, payload) {
  try {
    return [true, call(op, payload)];
  } catch (refusal) {
    return [false, refusal instanceof Error ? refusal.message : String(refusal)];
  }
}

/**
 * Every text that QuickJS evaluates is called <input> in a stack, so modules are told apart by their lines: each
 * is moved down by as many empty lines as the modules before it have.
 */
const regions = [];
let lines = 0;

function compile(file, source) {
  // Every kind of line end on its own: too many are no harm, and a pattern would cost more than compiling does.
  const ends = ["\n", "\r", "\u2028", "\u2029"].map((end) => source.split(end).length - 1);
  const count = ends.reduce((sum, number) => sum + number, 1);
  const region = { file, count, first: lines + 1, last: lines + count + 1 };
  regions.push(region);
  lines = region.last;
  const padding = "\n".repeat(region.first - 1);
  return (0, evaluate)(`${padding}(function (exports, require, module) {${source}\n})`);
}

/**
 * `[file, line]` of the innermost frame of the agent's own code; null when there is none. A frame without a
 * function is where parsing stopped: of the module while it is compiled, of any text (JSON) afterwards.
 */
function place(error, parsing) {
  const frames = parsing ? /^\s*at <input>:(\d+)/gm : /\(<input>:(\d+)/g;
  for (const [, line] of String(error.stack).matchAll(frames)) {
    const region = regions.find(({ first, last }) => first <= line && line <= last);
    if (region !== undefined) return [region.file, Math.min(line - region.first + 1, region.count)];
  }
  return null;
}

const serve = require("./boot.js").boot(globalThis, transport, { compile, place });
// What the componentizer left behind is no part of what an agent may rely on.
delete globalThis.__cqjs;
delete globalThis.wit;

export function handle(input) {
  const [ok, text] = serve(input);
  if (ok) return text;
  throw text;
}
