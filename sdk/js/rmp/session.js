/**
 * The client's half of a session, without I/O: bytes in, answers and deliveries out.
 *
 * Knows: the hello, message ids, which answer belongs to which question; and, over several connections, what
 * was subscribed, consumed and not finished (`disconnected`). Does not know: sockets, time, promises
 * (`client.js`).
 */

import { openFrame, encodeMessage } from "./envelope.js";
import {
  BodyDecodeError,
  RefusedError,
  RunloopError,
  UnreachableError,
  UsageError,
  fromWire,
  isRecord,
} from "./errors.js";
import { FrameReader } from "./frame.js";
import { HELLO_ID, PROTOCOL, proof } from "./hello.js";
import { BUILD } from "./registry.js";
import { CTRL, clientReply, pattern as checkedPattern, topic as checkedTopic } from "./topics.js";

const STATUS = "look at it with 'rlp daemon status'";

/** A durable consumer over all connections of this client. */
class Consumer {
  /** What the program has acknowledged. */
  acked = 0;
  /** Newest delivery handed to the program; what is not newer came again. */
  seen = 0;
  /**
   * Newest delivery of this connection, repeated ones too: the daemon lets nothing beyond be acknowledged.
   */
  received = 0;
  /** Acknowledged on this connection. */
  told = 0;

  constructor(pattern, start) {
    this.pattern = pattern;
    this.start = start;
  }
}

/**
 * One publisher's state. Feed it what was read; it calls `write(bytes)` for what is to be written,
 * `onReady()` once the daemon accepted a hello, `onAnswer(id, error, result)`, `onDelivery(delivery)` and
 * `onTaken(name, error)` when another session took up a durable consumer of this one.
 *
 * `instance`: 32 secret bytes, the same for every connection of this publisher. `about`: what the
 * directory shows
 * (`version`, `serves`, `capabilities`, `heartbeat_ms`).
 */
export class Session {
  #credential;
  #nowMs;
  #client;
  #build;
  #instance;
  #about;
  #wires;
  #reader = new FrameReader();
  #msgId = 0n;
  #lastReport = null;
  #patterns = new Set();
  #consumers = new Map();
  /** Id of the answer -> what is asked again on the next connection, in the order it was asked. */
  #again = new Map();
  /** Id of the answer -> what it changes here, whoever waits for it. */
  #then = new Map();

  constructor(
    {
      credential = null,
      nowMs = Date.now,
      client = "javascript",
      build = BUILD,
      instance = null,
      about = {},
    },
    wires,
  ) {
    this.#credential = credential;
    this.#nowMs = nowMs;
    this.#client = client;
    this.#build = build;
    this.#instance = instance;
    this.#about = about;
    this.#wires = wires;
    /** True once the daemon accepted the hello. */
    this.ready = false;
    /** `operator` or `peer`, as the daemon decided. */
    this.principal = "";
    this.session = "";
    this.replyTopic = "";
  }

  // --- in ---------------------------------------------------------------------------------------------

  /** Take bytes from the daemon; throws what ends the session. */
  feed(data) {
    for (const frame of this.#reader.feed(data)) this.#take(frame);
    if (this.#reader.error !== null) throw this.#reader.error;
  }

  /** The error for a connection that the daemon closed, with the reason it gave, if any. */
  lost() {
    const report = this.#lastReport;
    const why = report === null ? "" : `: ${report.message}`;
    const hint = typeof report?.hint === "string" && report.hint ? report.hint : STATUS;
    return new UnreachableError(`the daemon closed the connection${why}`, { hint, code: "client.lost" });
  }

  /**
   * The connection is gone and another will be made: what can be asked again will be, once the next hello is
   * accepted. `repeats(id)` tells which questions these are; the others have no answer.
   */
  disconnected() {
    this.#reader = new FrameReader();
    this.ready = false;
    this.#lastReport = null;
    for (const id of this.#then.keys()) if (!this.#again.has(id)) this.#then.delete(id);
    for (const consumer of this.#consumers.values()) consumer.received = consumer.told = 0;
  }

  /** Whether this question is asked again on the next connection. */
  repeats(id) {
    return this.#again.has(id);
  }

  /** Nobody waits for this answer any more. */
  giveUp(id) {
    this.#again.delete(id);
  }

  // --- out: each returns the id that its answer will carry ----------------------------------------------

  /** Ask on rlp/ctrl. `idempotent`: asked again after a reconnection. */
  call(method, params, { idempotent = false } = {}) {
    const id = this.#next();
    const ask = () =>
      this.#send(
        "intent.ctrl.request.v1",
        { id, method, params: params ?? {} },
        { topic: CTRL, meta: { reply_to: this.replyTopic } },
      );
    ask();
    if (idempotent) this.#again.set(id, ask);
    return id;
  }

  /** Have frames on `pattern` delivered, on this connection and the next ones. */
  subscribe(pattern) {
    const id = this.#control({ action: "subscribe", pattern: checkedPattern(pattern) });
    this.#then.set(id, (answer) => {
      if (answer.ok === true) this.#patterns.add(pattern);
    });
    return id;
  }

  /** Undo `subscribe`. */
  unsubscribe(pattern) {
    this.#patterns.delete(pattern);
    return this.#control({ action: "unsubscribe", pattern: checkedPattern(pattern) });
  }

  /** The daemon's clock; also a sign of life for the directory. */
  ping() {
    return this.#control({ action: "ping" });
  }

  /** Say anew what the directory shows of this program. */
  announce(about) {
    const id = this.#control({ ...about, action: "announce" });
    this.#about = { ...about };
    return id;
  }

  /**
   * Take up the durable consumer `name`. Its deliveries bear its name, come in order, each once, and wait for
   * `ack`. `start`: where a new one begins, at the `first` message or the `next`.
   */
  consume(name, pattern, { start = "first" } = {}) {
    const known = this.#consumers.get(name);
    if (known !== undefined && known.pattern !== pattern) {
      throw new UsageError(`the consumer ${name} reads ${known.pattern}`, { hint: "leave it first" });
    }
    const consumer = known ?? new Consumer(checkedPattern(pattern), start);
    this.#consumers.set(name, consumer);
    const id = this.#control(() => consumption(name, consumer));
    this.#then.set(id, (answer) => {
      if (answer.ok !== true && known === undefined) this.#consumers.delete(name);
    });
    return id;
  }

  /** Give a durable consumer up: for now, or (`forget`) for ever. */
  leave(name, { forget = false } = {}) {
    this.#consumers.delete(name);
    return this.#control({ action: "unsubscribe", durable: name, forget });
  }

  /** Everything that `name` was delivered up to `seq` is done with. Nothing comes back for it. */
  ack(name, seq) {
    const consumer = this.#consumers.get(name);
    if (consumer === undefined) return;
    consumer.acked = Math.max(consumer.acked, seq);
    this.#tell(name, consumer);
  }

  /**
   * Publish and want a receipt. `durable`: the topic is, and the message is sent again, under the same ids,
   * until it is in the ledger: once.
   */
  publish(topic, type, payload, { meta, traceId, ttlMs, durable = false } = {}) {
    checkedTopic(topic);
    const id = this.#next();
    const how = { topic, meta: { ...meta, receipt: true }, traceId, ttlMs };
    this.#send(type, payload, how);
    if (durable) this.#again.set(id, () => this.#send(type, payload, { ...how, msgId: BigInt(id) }));
    return id;
  }

  /** Publish and want an answer (2002) from whoever serves the topic. */
  request(topic, type, payload, { traceId } = {}) {
    const id = this.#next();
    const meta = { reply_to: this.replyTopic, correlation: id };
    this.#send(type, payload, { topic: checkedTopic(topic), meta, traceId });
    return id;
  }

  // --- inside ---------------------------------------------------------------------------------------

  /** The msg_id of the frame that asks: a refusal names it, so one id serves for both. */
  #next() {
    return String(this.#msgId + 1n);
  }

  #control(payload) {
    const id = this.#next();
    const ask = () =>
      this.#send("intent.control.v1", { id, ...(typeof payload === "function" ? payload() : payload) });
    ask();
    this.#again.set(id, ask);
    return id;
  }

  /** Acknowledge what the program is done with and this connection has seen. */
  #tell(name, consumer) {
    const seq = Math.min(consumer.acked, consumer.received);
    if (!this.ready || seq <= consumer.told) return;
    consumer.told = seq;
    this.#send("intent.control.v1", { action: "ack", durable: name, seq });
  }

  /** A new connection: everything stands as it stood, then what was under way goes on. */
  #resume() {
    for (const pattern of this.#patterns) this.#resumed({ action: "subscribe", pattern });
    for (const [name, consumer] of this.#consumers) this.#resumed(consumption(name, consumer));
    for (const ask of [...this.#again.values()]) ask();
  }

  #resumed(payload) {
    const id = this.#next();
    this.#then.set(id, (answer) => {
      if (answer.ok !== true) throw fromWire(answer.error);
    });
    this.#send("intent.control.v1", { id, ...payload });
  }

  #send(type, payload, { topic, meta, traceId, ttlMs, msgId } = {}) {
    const number = msgId ?? this.#msgId + 1n;
    const bytes = encodeMessage(type, payload, {
      msgId: number,
      nowMs: this.#nowMs(),
      topic,
      meta,
      traceId,
      ttlMs,
    });
    if (msgId === undefined) this.#msgId = number; // not before: what cannot be encoded was never sent
    this.#wires.write(bytes);
  }

  #take(frame) {
    let envelope;
    try {
      envelope = openFrame(frame);
    } catch (error) {
      if (error instanceof BodyDecodeError || !(error instanceof RunloopError)) throw error;
      return; // a schema newer than ours: not for us
    }
    const { payload } = envelope;
    const topic = envelope.topic ?? "";
    const ours = topic === this.replyTopic;
    if (frame.schemaId === 101 && !this.ready) this.#greet(payload);
    else if (frame.schemaId === 10 && isRecord(payload) && (ours || topic === "")) this.#report(payload);
    else if (frame.schemaId === 2002 && isRecord(payload) && (ours || !this.ready)) this.#answered(payload);
    else this.#delivered(frame, envelope, topic);
  }

  #delivered(frame, envelope, topic) {
    const { meta } = envelope;
    const consumer = typeof meta.consumer === "string" ? meta.consumer : "";
    const seq = typeof meta.seq === "number" ? meta.seq : 0;
    if (consumer !== "" && !this.#isNew(consumer, seq)) return;
    this.#wires.onDelivery({
      topic,
      type: envelope.type,
      payload: envelope.payload,
      meta,
      traceId: frame.traceId,
      msgId: frame.msgId,
      schemaId: frame.schemaId,
      consumer,
      seq,
      publisher: typeof meta.publisher === "string" ? meta.publisher : "",
    });
  }

  /** Whether the program has not had this delivery of a consumer, or has given the consumer up. */
  #isNew(name, seq) {
    const consumer = this.#consumers.get(name);
    if (consumer === undefined) return false;
    consumer.received = Math.max(consumer.received, seq);
    if (seq <= consumer.seen) {
      this.#tell(name, consumer); // came again: the daemon had not heard that it was acknowledged
      return false;
    }
    consumer.seen = seq;
    return true;
  }

  #greet(payload) {
    if (!isRecord(payload) || !(payload.nonce instanceof Uint8Array)) {
      throw new RefusedError("the daemon's hello is not one", {
        hint: "is this Runloop's socket?",
        code: "hello.shape",
      });
    }
    this.replyTopic = clientReply(payload.session);
    this.#send("observation.agent.hello.v1", {
      protocol: PROTOCOL,
      build: this.#build,
      client: this.#client,
      proof: this.#credential === null ? null : proof(this.#credential, payload.nonce),
      ...(this.#instance === null ? {} : { instance: this.#instance }),
      ...this.#about,
    });
  }

  #answered(payload) {
    const { id } = payload;
    if (id === HELLO_ID && !this.ready) {
      if (payload.ok !== true) throw fromWire(payload.error);
      const result = isRecord(payload.result) ? payload.result : {};
      this.principal = String(result.principal);
      this.session = String(result.session);
      this.ready = true;
      this.#resume();
      this.#wires.onReady();
    } else if (typeof id === "string") {
      const closing = isRecord(payload.error) && payload.error.code === "bus.closing";
      if (closing && (this.#again.has(id) || this.#then.has(id))) return; // the next daemon is asked
      const then = this.#then.get(id);
      this.#then.delete(id);
      this.#again.delete(id);
      then?.(payload);
      if (payload.ok === true) this.#wires.onAnswer(id, null, payload.result ?? null);
      else this.#wires.onAnswer(id, fromWire(payload.error), null);
    }
  }

  #report(payload) {
    this.#lastReport = payload;
    const error = fromWire(isRecord(payload.wire) ? payload.wire : payload);
    if (payload.msg_id !== undefined) {
      const id = String(payload.msg_id);
      this.#again.delete(id);
      this.#wires.onAnswer(id, error, null);
    } else if (this.#consumers.delete(error.data?.consumer)) {
      this.#wires.onTaken(error.data.consumer, error); // whoever has it next gets what was not acknowledged
    }
  }
}

function consumption(name, consumer) {
  const { pattern, start, acked } = consumer;
  return { action: "subscribe", pattern, durable: name, start, after: acked };
}
