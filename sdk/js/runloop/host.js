"use strict";
/**
 * The author's view of the world outside a guest: one method for every host call of Runloop.
 *
 * Knows: argument and answer shapes, how a refusal looks. Does not know: who may call what (the gate decides,
 * and a refusal is an exception the agent may survive), nor how the text travels (the transport is given).
 */

const { encode, parsed } = require("./json.js");
const { fromBase64, fromUtf8, toBase64 } = require("./bytes.js");

/** Most bytes that one `random.bytes` answers. */
const RANDOM_BYTES = 65536;

/** The gate refused or could not do a host call. Nothing else happened; the agent may go on. */
class HostRefused extends Error {
  constructor(code, message, hint = null, retryable = false, op = "") {
    super(message);
    this.name = "HostRefused";
    this.code = code;
    this.hint = hint;
    this.retryable = retryable;
    this.op = op;
  }
}

/** What a model, or the offline rules provider standing in for one, answered. */
class Completion {
  constructor(answer) {
    this.text = String(answer.text ?? "");
    this.provider = String(answer.provider ?? "");
    this.model = String(answer.model ?? "");
    this.generated = answer.generated ?? true;
    this.finish = String(answer.finish ?? "");
    this.raw = answer;
  }

  json() {
    return parsed(this.text);
  }
}

/** What a web server answered, as it is on record. */
class Response {
  constructor(answer, url) {
    this.status = answer.status;
    this.ok = answer.status >= 200 && answer.status <= 299;
    this.url = answer.url ?? url;
    this.headers = answer.headers ?? {};
    this.truncated = answer.truncated ?? false;
    this._answer = answer;
  }

  bytes() {
    return this._answer.base64 === undefined || this._answer.base64 === null
      ? new TextEncoder().encode(this.text())
      : fromBase64(this._answer.base64);
  }

  text() {
    const { text, base64 } = this._answer;
    return text === undefined || text === null ? fromUtf8(fromBase64(base64 ?? "")) : text;
  }

  json() {
    return parsed(this.text());
  }
}

class Host {
  /** `transport(op, payload)` answers `[ok, text]`: the one import of a guest, without its exceptions. */
  constructor(transport) {
    this._transport = transport;
  }

  call(op, args = {}) {
    const payload = encode(args, "arguments");
    if (typeof op !== "string" || !/^[a-z]+(\.[a-z_]+)?$/.test(op)) throw new TypeError("no such host call");
    const [ok, text] = this._transport(op, payload);
    if (ok) return parsed(text);
    throw refusal(op, text);
  }

  // --- time, chance, talk ---

  nowMs() {
    return this.call("time.now").now_ms;
  }

  randomBytes(n) {
    const bytes = new Uint8Array(n);
    for (let at = 0; at < n; at += RANDOM_BYTES) {
      const part = fromBase64(this.call("random.bytes", { n: Math.min(n - at, RANDOM_BYTES) }).base64);
      if (part.length < Math.min(n - at, RANDOM_BYTES)) {
        throw new HostRefused("host.answer", "random.bytes answered too little", null, false, "random.bytes");
      }
      bytes.set(part.subarray(0, Math.min(n - at, RANDOM_BYTES)), at);
    }
    return bytes;
  }

  log(message, level = "info", fields = {}) {
    this.call("log.write", { message, level, fields });
  }

  progress(message, fraction = null) {
    this.call("progress", { message, fraction });
  }

  // --- knowledge ---

  kbSearch(query, { k = 8, kinds = [] } = {}) {
    return this.call("kb.search", { query, k, kinds }).items ?? [];
  }

  kbQuery(sql, params = [], { limit = 200 } = {}) {
    const { columns = [], rows = [] } = this.call("kb.query", { sql, params, limit });
    return rows.map((row) =>
      Array.isArray(row) ? Object.fromEntries(columns.map((name, at) => [name, row[at]])) : row,
    );
  }

  kbRead(kind, id) {
    return this.call("kb.read", { kind, id }).item;
  }

  kbWhy(ref) {
    return this.call("kb.why", { ref });
  }

  kbPropose(kind, payload) {
    return this.call("kb.propose", { kind, payload });
  }

  // --- memory, artifacts, blobs ---

  memoryGet(key, { namespace = "private" } = {}) {
    const { value = null, version = 0 } = this.call("memory.get", { key, namespace });
    return { value, version };
  }

  memoryPut(key, value, { namespace = "private", expectedVersion = null } = {}) {
    const args = { key, value, namespace, expected_version: expectedVersion };
    return this.call("memory.put", args).version;
  }

  putArtifact(name, content, { mediaType = "text/plain; charset=utf-8" } = {}) {
    const data = typeof content === "string" ? { text: content } : { base64: toBase64(content) };
    return this.call("artifact.put", { name, media_type: mediaType, ...data }).digest;
  }

  blobRead(digest, { offset = 0, length = 65536 } = {}) {
    return fromBase64(this.call("blob.read", { digest, offset, length }).base64);
  }

  // --- models ---

  complete(messages, options = {}) {
    const { jsonSchema = null, template = null, facts = {} } = options;
    const args = { ...question(messages, options), json_schema: jsonSchema, template, facts };
    return new Completion(this.call("model.complete", args));
  }

  *completeStream(messages, options = {}) {
    const { stream } = this.call("model.complete", { ...question(messages, options), stream: true });
    for (let item = this.nextMessage(stream); item !== null; item = this.nextMessage(stream)) yield item;
  }

  nextMessage(stream) {
    const answer = this.call("msg.next", { stream });
    return answer.done ? null : answer.item;
  }

  // --- the web and tools ---

  fetch(url, { method = "GET", headers = {}, body = null, maxBytes = null } = {}) {
    const args = { url, method, headers };
    if (typeof body === "string") args.text = body;
    else if (body !== null) args.base64 = toBase64(body);
    if (maxBytes !== null) args.max_bytes = maxBytes;
    return new Response(this.call("http.fetch", args), url);
  }

  tools() {
    return this.call("tool.list").tools ?? [];
  }

  callTool(tool, args = {}) {
    return this.call("tool.call", { tool, args }).result;
  }

  // --- effects ---

  sendMail({ to, subject, body, cc = [], bcc = [], inReplyTo = null }) {
    return this.call("mail.send", { to, subject, body, cc, bcc, in_reply_to: inReplyTo });
  }
}

function question(messages, { model = null, maxTokens = 1024, temperature = 0 }) {
  const asked = typeof messages === "string" ? [{ role: "user", content: messages }] : messages;
  return { messages: asked, model, max_tokens: maxTokens, temperature };
}

/** The error object `{code, message, hint, retryable}` as an exception. */
function refusal(op, text) {
  let value = null;
  try {
    value = parsed(text);
  } catch {
    // not ours; the text itself is all there is to say
  }
  if (value === null || typeof value !== "object") {
    return new HostRefused("host.error", text || "the host call failed", null, false, op);
  }
  return new HostRefused(
    String(value.code ?? "host.error"),
    String(value.message ?? "the host call failed"),
    value.hint === undefined || value.hint === null ? null : String(value.hint),
    value.retryable === true,
    op,
  );
}

module.exports = { Completion, Host, HostRefused, Response };
