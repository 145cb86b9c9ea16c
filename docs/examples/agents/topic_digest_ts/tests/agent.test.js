"use strict";
const assert = require("node:assert");
const path = require("node:path");
const { test } = require("node:test");
const { FakeHost, loadAgent, testCases } = require("runloop/testing");

const agent = loadAgent(path.join(__dirname, ".."));
const KB = { items: [{ kind: "note", id: "n", title: "A *star*", snippet: "x", score: 1, event: 1 }] };

test("the page it keeps shows titles as they are written", () => {
  const host = new FakeHost({
    "kb.search": KB,
    "memory.get": { value: null, version: 0 },
    "memory.put": { version: 1 },
    "artifact.put": { name: "digest.md", digest: "d".repeat(64), size: 1 },
  });
  const outcome = agent.run({ with: { topic: "t" }, host });
  assert.deepStrictEqual(outcome.artifacts, ["d".repeat(64)]);
  assert.match(host.made("artifact.put")[0].text, /^# t, 2025-06-15\n\n- \*\*new\*\* A \\\*star\\\* \(note\): x\n$/);
  assert.equal(host.made("memory.put")[0].expected_version, 0);
});

testCases(agent);
