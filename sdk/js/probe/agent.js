"use strict";
/** The probe: does what the vectors in sdk/conformance/abi.json say, with nothing but the SDK's public API. */

const { Fail, HostRefused, Result, handler, tool } = require("runloop");

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const binary = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

const HELPERS = {
  "time.now": (host) => host.nowMs(),
  "random.bytes": (host, { n }) => ({ hex: hex(host.randomBytes(n)) }),
  "log.write": (host, { message, level, fields }) => host.log(message, level, fields),
  progress: (host, { message, fraction }) => host.progress(message, fraction),
  "kb.search": (host, { query, ...more }) => host.kbSearch(query, more),
  "kb.query": (host, { sql, params, ...more }) => host.kbQuery(sql, params, more),
  "kb.read": (host, { kind, id }) => host.kbRead(kind, id),
  "kb.why": (host, { ref }) => host.kbWhy(ref),
  "kb.propose": (host, { kind, payload }) => host.kbPropose(kind, payload),
  "memory.get": (host, { key, ...more }) => host.memoryGet(key, more),
  "memory.put": (host, { key, value, namespace, expected_version: expectedVersion }) =>
    host.memoryPut(key, value, { namespace, expectedVersion }),
  "artifact.put": (host, { name, media_type: mediaType, text, base64 }) =>
    host.putArtifact(name, text ?? binary(base64), { mediaType }),
  "blob.read": (host, { digest, ...more }) => ({ hex: hex(host.blobRead(digest, more)) }),
  "model.complete": (host, { messages, model, max_tokens: maxTokens, temperature, ...more }) => {
    const { json_schema: jsonSchema, template, facts } = more;
    const asked = { model, maxTokens, temperature, jsonSchema, template, facts };
    const { text, provider, model: used, generated, finish } = host.complete(messages, asked);
    return { text, provider, model: used, generated, finish };
  },
  "msg.next": (host, { stream }) => host.nextMessage(stream),
  "mail.send": (host, { in_reply_to: inReplyTo, ...mail }) => host.sendMail({ ...mail, inReplyTo }),
  "http.fetch": (host, { url, method, headers, text, base64, max_bytes: maxBytes }) => {
    const body = text ?? (base64 === undefined ? null : binary(base64));
    const page = host.fetch(url, { method, headers, body, maxBytes });
    const { status, url: from, headers: said, truncated } = page;
    return { status, url: from, headers: said, hex: hex(page.bytes()), truncated };
  },
  // Files have no helpers in JavaScript until the next build of its runner.
  "fs.read": (host, args) => {
    const { text, base64 } = host.call("fs.read", args);
    return { hex: hex(text === undefined ? binary(base64) : new TextEncoder().encode(text)) };
  },
  "fs.write": (host, args) => host.call("fs.write", args).digest,
  "fs.list": (host, args) => {
    const { entries, truncated } = host.call("fs.list", args);
    return { entries, truncated };
  },
  "fs.stat": (host, args) => host.call("fs.stat", args),
  "tool.list": (host) => host.tools(),
  "tool.call": (host, { tool: id, args }) => host.callTool(id, args),
};

function survived(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof HostRefused)) throw error;
    const { code, message, hint, retryable } = error;
    return { refused: { code, message, hint, retryable } };
  }
}

function perform(command, task, host, artifacts) {
  const { do: what, op, args } = command;
  switch (what) {
    case "echo":
      return command.value;
    case "size":
      return { characters: [...command.text].length, bytes: new TextEncoder().encode(command.text).length };
    case "port":
      return task.port(command.name);
    case "all":
      return task.all(command.name);
    case "param":
      return task.param(command.name);
    case "context":
      return task.context;
    case "fail":
      throw new Fail(command.code, command.message, command.retryable);
    case "call":
      return survived(() => host.call(op, args));
    case "must":
      return host.call(op, args);
    case "helper": {
      const value = survived(() => HELPERS[op](host, args)) ?? null;
      if (op === "artifact.put" && typeof value === "string") artifacts.push(value);
      return value;
    }
    default:
      throw new Fail("probe.unknown", `the probe cannot ${JSON.stringify(what)}`);
  }
}

exports.handle = handler((task, host) => {
  const artifacts = [];
  const out = task.all("in").map((command) => perform(command, task, host, artifacts));
  return new Result({ ports: { out }, artifacts });
});

const number = { type: "number" };
tool(
  "probe.add",
  {
    description: "Adds two numbers.",
    input: { type: "object", properties: { a: number, b: number }, required: ["a", "b"] },
    result: number,
  },
  ({ a, b }) => a + b,
);

tool("probe.fail", { description: "Fails.", input: { type: "object" } }, () => {
  throw new Fail("probe.failed", "as told", true);
});
