"use strict";
/**
 * What the author of a JavaScript or TypeScript agent writes against.
 *
 *     const { handler } = require("runloop");
 *     exports.handle = handler((task, host) => ({ out: task.port("text").split(" ").length }));
 *
 * Knows: shapes of the ABI's input and output, what an agent declared. Does not know: how its source got here
 * (guest.js) or what the world offers (host.js). The types are in runloop.d.ts.
 */

const { encode } = require("./json.js");
const { Completion, Host, HostRefused, Response } = require("./host.js");

const TOOL_ID = /^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$/;

/** End the attempt on purpose: the work cannot be done, and here is why, in words for a person. */
class Fail extends Error {
  constructor(code, message, retryable = false) {
    super(message);
    this.name = "Fail";
    this.code = code;
    this.retryable = retryable;
  }
}

/** One piece of work: what arrived on the ports, what the opening's `with` says, and for whom. */
class Task {
  constructor({ ports = {}, with: with_ = {}, context = {}, message = {} } = {}) {
    this.ports = ports;
    this.with = with_;
    this.context = context;
    this.message = message;
  }

  port(name, ...fallback) {
    const values = own(this.ports, name);
    if (values !== undefined && values.length > 0) return values[values.length - 1];
    if (fallback.length > 0) return fallback[0];
    throw new Fail("task.port", `nothing arrived on input port '${name}'`);
  }

  all(name) {
    return [...(own(this.ports, name) ?? [])];
  }

  param(name, ...fallback) {
    const value = own(this.with, name);
    if (value !== undefined) return value;
    if (fallback.length > 0) return fallback[0];
    throw new Fail("task.with", `the opening gives no '${name}' under 'with'`);
  }
}

function own(table, name) {
  return Object.prototype.hasOwnProperty.call(table, name) ? table[name] : undefined;
}

/** What an attempt produced: output ports with lists of values, and digests of artifacts. */
class Result {
  constructor({ ports = {}, artifacts = [] } = {}) {
    this.ports = ports;
    this.artifacts = artifacts;
  }

  /** One value for each named port. */
  static of(values, artifacts = []) {
    return new Result({
      ports: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, [value]])),
      artifacts,
    });
  }

  /** The JSON text the ABI returns. Throws a Fail for values that are not JSON. */
  toOutput() {
    const lists = Object.entries(this.ports).map(([name, values]) => [name, [...values]]);
    const value = { ports: Object.fromEntries(lists), artifacts: [...this.artifacts].map(String) };
    try {
      return encode(value, "the result");
    } catch (error) {
      throw new Fail("agent.output", error.message);
    }
  }
}

/** What the agent's modules declared while they were loaded. */
const declared = { handler: null, tools: new Map() };

/** Declare the function that serves tasks: `(task, host) => Result | {port: value}`. */
function handler(serve) {
  if (typeof serve !== "function") throw new TypeError("handler() takes the function that serves tasks");
  if (declared.handler !== null && declared.handler !== serve) {
    throw new TypeError("handler() was called twice: an agent has one handler");
  }
  declared.handler = serve;
  return serve;
}

/** Declare a tool: `tool("weather.get_forecast", {description, input, result}, (args, host) => value)`. */
function tool(id, about, serve) {
  if (typeof id !== "string" || !TOOL_ID.test(id)) {
    throw new TypeError("tool() takes an id first, family.verb, as 'weather.get_forecast'");
  }
  if (typeof serve !== "function") throw new TypeError(`tool '${id}' takes its function last`);
  if (declared.tools.has(id)) throw new TypeError(`there are two tools '${id}'`);
  const { description = "", input, result = null } = about ?? {};
  for (const [name, schema] of [["input", input], ["result", result]]) {
    const fits = name === "result" && schema === null;
    if (!fits && (typeof schema !== "object" || schema === null || Array.isArray(schema))) {
      throw new TypeError(`tool '${id}' needs a JSON Schema object as its '${name}'`);
    }
  }
  declared.tools.set(id, { id, description: String(description), input, result, serve });
  return serve;
}

module.exports = { Completion, Fail, Host, HostRefused, Response, Result, Task, handler, tool };
/** For guest.js alone: not part of what `require("runloop")` gives to an agent. */
Object.defineProperty(module.exports, "declared", { value: declared, enumerable: false });
