"use strict";
// Unit tests for node:test. 'rlp agent test' compiles the agent and runs them first, tests/cases.toml included.

const assert = require("node:assert");
const path = require("node:path");
const { test } = require("node:test");
const { FakeHost, loadAgent, testCases } = require("runloop/testing");

const agent = loadAgent(path.join(__dirname, ".."));

test("it says in the log how much it found", () => {
  const host = new FakeHost();
  const outcome = agent.run({ ports: { text: ["todo: one\nReally?"] }, host });
  assert.deepStrictEqual(outcome.value("out").questions, ["Really?"]);
  assert.equal(host.made("log.write")[0].message, "found 2 requests");
});

test("an empty text is a failure with a code", () => {
  assert.equal(agent.run({ ports: { text: [""] } }).code, "__NAME__.empty");
});

testCases(agent);
