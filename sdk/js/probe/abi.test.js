"use strict";
/** Plays the vectors of the ABI against the probe in Node: `NODE_PATH=sdk/js node --test sdk/js/probe/`. */

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const { loadAgent } = require("runloop/testing");

const VECTORS = path.join(__dirname, "..", "..", "conformance", "abi.json");
const { cases, defaults } = JSON.parse(fs.readFileSync(VECTORS, "utf8"));

/** A host that must be asked exactly what the case says, in that order. */
class Scripted {
  constructor(exchanges = []) {
    this.left = [...exchanges];
    this.unscripted = [];
  }

  transport(op, payload) {
    const next = this.left.shift();
    assert.ok(next !== undefined, `${op} is one call too many`);
    assert.equal(op, next.op);
    assert.deepEqual(plain(op, JSON.parse(payload)), plain(op, next.args));
    if (next.answer_text !== undefined) return [true, next.answer_text];
    if (next.refusal_text !== undefined) return [false, next.refusal_text];
    return next.refusal === undefined
      ? [true, JSON.stringify(next.answer)]
      : [false, JSON.stringify(next.refusal)];
  }
}

function plain(op, args) {
  const usual = defaults[op] ?? {};
  const said = ([name, value]) => value !== null && JSON.stringify(usual[name]) !== JSON.stringify(value);
  return Object.fromEntries(Object.entries(args).filter(said));
}

function includes(found, expected) {
  if (Array.isArray(expected)) {
    assert.equal(found.length, expected.length);
    expected.forEach((value, at) => includes(found[at], value));
  } else if (typeof expected === "object" && expected !== null) {
    for (const [name, value] of Object.entries(expected)) includes(found[name], value);
  } else {
    assert.deepStrictEqual(found, expected);
  }
}

const agent = loadAgent(__dirname);
let host = new Scripted();
const many = agent.serve({ transport: (op, payload) => host.transport(op, payload) });

// JavaScript's numbers are doubles: integers beyond 2**53 are for those who can.
for (const one of cases.filter((item) => !(item.needs ?? []).includes("exact_integers"))) {
  test(one.name, () => {
    host = new Scripted(one.host);
    const [ok, text] = many(one.input);
    const answer = JSON.parse(text);
    assert.deepEqual(host.left, []);
    assert.equal(ok, one.error === undefined, text);
    if (one.output !== undefined) assert.deepStrictEqual(answer, one.output);
    else if (one.includes !== undefined) includes(answer, one.includes);
    else {
      const { codes, message, retryable } = one.error;
      assert.ok(codes.length === 0 || codes.includes(answer.code), text);
      if (message !== undefined) assert.equal(answer.message, message);
      if (retryable !== undefined) assert.equal(answer.retryable, retryable);
      assert.deepEqual(Object.keys(answer).sort(), ["code", "message", "retryable"]);
    }
  });
}
