/**
 * Talk to the daemon over its Unix socket: questions are promises, subscriptions are async iterators.
 *
 * Knows: connecting, waiting with a bound, what happens when the daemon goes away and comes back. Does not
 * know: how frames look, and what is asked again after a loss (`session.js`).
 *
 * After a loss the client connects again, waiting longer each time. Subscriptions stand, durable consumers
 * go on
 * where they were, durable publishes under way are sent again under the same ids. Other questions fail with
 * `client.lost`, because nobody can know whether they were heard; `idempotent` calls are asked again.
 */

import { randomBytes } from "node:crypto";
import net from "node:net";

import { FailedError, UnreachableError, UsageError } from "./errors.js";
import { Session } from "./session.js";
import { matches, pattern as checkedPattern } from "./topics.js";

/** Deliveries that one subscription holds before it is ended as overrun. */
export const MAX_WAITING = 65_536;

const INSTANCE_BYTES = 32;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 5_000;
const STATUS = "look at it with 'rlp daemon status'";

/**
 * Connect and say hello. `credential`: the 32 bytes that make this session an operator's; without them it is
 * a peer. Throws UnreachableError when nobody answers, RefusedError for another build.
 */
export async function connect(options) {
  const client = new Client(options);
  await client._open();
  return client;
}

/** A connected session. Made by `connect`. */
export class Client {
  #path;
  #timeoutMs;
  #reconnectMs;
  #onState;
  #session;
  #socket = null;
  /** Of the connection that is being made: what the accepted hello resolves. */
  #greeted = null;
  /** Settles when the daemon is (again) reached; rejected for good when it is given up. */
  #connected = null;
  /** Id -> what waits for its answer. */
  #waiting = new Map();
  /** Pattern -> the subscriptions that want it. */
  #subscriptions = new Map();
  /** Name -> the durable consumer's subscription. */
  #consumers = new Map();
  #closed = null;

  constructor(options) {
    const { path, timeoutMs = 5_000, reconnectMs = 60_000, onState = () => {}, ...session } = options;
    if (typeof path !== "string" || path === "") {
      throw new UsageError("no path of the daemon's socket is given", {
        hint: "'rlp daemon status --json' names it",
        code: "client.path",
      });
    }
    this.#path = path;
    this.#timeoutMs = timeoutMs;
    this.#reconnectMs = reconnectMs;
    this.#onState = onState;
    this.#session = new Session(
      { instance: randomBytes(INSTANCE_BYTES), ...session },
      {
        write: (bytes) => this.#socket?.write(bytes),
        onReady: () => this.#greeted?.resolve(),
        onAnswer: (id, error, result) => this.#settle(id, error, result),
        onDelivery: (delivery) => this.#deliver(delivery),
        onTaken: (name, error) => this.#taken(name, error),
      },
    );
  }

  /** `operator` or `peer`: what the daemon takes this session for. */
  get principal() {
    return this.#session.principal;
  }

  /** This session's private topic, for `meta.reply_to`; another one after each reconnection. */
  get replyTopic() {
    return this.#session.replyTopic;
  }

  /** Ask the daemon and return its result; an error that it answers is thrown as the family it was. */
  call(method, params = {}, { timeoutMs = 30_000, idempotent = false } = {}) {
    const call = () => this.#session.call(method, params, { idempotent });
    return this.#ask(call, timeoutMs, `no answer to ${method}`);
  }

  /** The daemon's clock, unix milliseconds. */
  async ping({ timeoutMs = this.#timeoutMs } = {}) {
    return (await this.#ask(() => this.#session.ping(), timeoutMs, "no answer to ping")).now_ms;
  }

  /**

   * Say anew what the directory shows of this program: `version`, `serves`, `capabilities`, `heartbeat_ms`.

   */
  async announce(about, { timeoutMs = this.#timeoutMs } = {}) {
    await this.#ask(() => this.#session.announce(about), timeoutMs, "no answer to announce");
  }

  /**
   * Publish one frame and wait until the bus has routed it: `{receivers, msgId, seq, duplicate}`. `durable`:
   * the topic is, and the receipt means that the message is in the ledger, once, however often the connection
   * was lost on the way.
   */
  async publish(topic, type, payload, { timeoutMs = 30_000, ...how } = {}) {
    let id = "";
    const publish = () => (id = this.#session.publish(topic, type, payload, how));
    const answer = await this.#ask(publish, timeoutMs, "no receipt");
    const { receivers, seq = 0, duplicate = false } = answer;
    return { receivers, msgId: BigInt(id), seq, duplicate };
  }

  /** Publish with `reply_to` and return the answer of whoever serves the topic. */
  request(topic, type, payload, { traceId, timeoutMs = 30_000 } = {}) {
    const request = () => this.#session.request(topic, type, payload, { traceId });
    return this.#ask(request, timeoutMs, `no answer from ${topic}`);
  }

  /** Have frames on `pattern` delivered; in force when this returns. */
  async subscribe(pattern, { timeoutMs = this.#timeoutMs } = {}) {
    checkedPattern(pattern);
    const wanted = this.#subscriptions.get(pattern) ?? new Set();
    this.#subscriptions.set(pattern, wanted);
    const subscription = new Subscription(pattern, () => this.#unsubscribe(subscription));
    wanted.add(subscription);
    try {
      await this.#ask(() => this.#session.subscribe(pattern), timeoutMs, "no answer to subscribe");
    } catch (error) {
      this.#forget(subscription);
      throw error;
    }
    return subscription;
  }

  /**
   * Take up the durable consumer `name`: every message of the durable topics under `pattern`, in order, each
   * once, until it is acknowledged with `ack`. `start`: where a new consumer begins, `first` or `next`.
   */
  async consume(name, pattern, { start = "first", timeoutMs = this.#timeoutMs } = {}) {
    if (this.#consumers.has(name)) {
      throw new UsageError(`the consumer ${name} is taken up already`, { code: "client.consumer" });
    }
    const consumer = new Consumer(name, pattern, this.#session, (options) => this.#leave(name, options));
    this.#consumers.set(name, consumer);
    try {
      const consume = () => this.#session.consume(name, pattern, { start });
      await this.#ask(consume, timeoutMs, "no answer to consume");
    } catch (error) {
      this.#consumers.delete(name);
      throw error;
    }
    return consumer;
  }

  /** Hang up once what was asked is written. Questions under way fail; subscriptions end. */
  close() {
    this.#end(null);
  }

  // --- inside -----------------------------------------------------------------------------------------

  /** For `connect` alone. */
  async _open() {
    this.#connected = this.#dial();
    try {
      await this.#connected;
    } catch (error) {
      this.#end(error);
      throw error;
    }
  }

  /** Put a question once connected, and wait for its answer, `timeoutMs` in all. */
  async #ask(put, timeoutMs, what) {
    const late = new Deadline(timeoutMs, what);
    let id = "";
    try {
      do await late.race(this.#ready());
      while (!this.#session.ready); // a loss can come between what is awaited and what follows
      id = put();
      const answered = deferred();
      this.#waiting.set(id, answered);
      return await late.race(answered.promise);
    } finally {
      late.clear();
      this.#waiting.delete(id);
      this.#session.giveUp(id);
    }
  }

  /** Resolves with a connection; another one may be lost by then, so it is asked for again. */
  async #ready() {
    while (this.#closed === null && !this.#session.ready) await this.#connected;
    if (this.#closed !== null) throw this.#closed;
  }

  #settle(id, error, result) {
    const asked = this.#waiting.get(id);
    if (error === null) asked?.resolve(result);
    else asked?.reject(error);
  }

  /** One attempt: connect and hello. */
  async #dial() {
    const socket = net.connect({ path: this.#path });
    const greeted = deferred();
    const late = new Deadline(this.#timeoutMs, "the daemon did not say hello");
    let failure = null;
    let up = false;
    this.#socket = socket;
    this.#greeted = greeted;
    socket.on("data", (data) => {
      if (failure !== null || this.#socket !== socket) return;
      try {
        this.#session.feed(data);
      } catch (error) {
        failure = error;
        socket.destroy();
      }
    });
    socket.on("error", (error) => {
      failure ??= socket.connecting || error.syscall === "connect" ? nobody(this.#path, error) : null;
    });
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      failure ??= this.#session.lost();
      this.#session.disconnected();
      greeted.reject(failure);
      if (up) this.#lost(failure);
    });
    try {
      await late.race(greeted.promise);
      up = true;
    } catch (error) {
      socket.destroy();
      if (this.#socket === socket) {
        this.#socket = null;
        this.#session.disconnected();
      }
      throw error;
    } finally {
      late.clear();
    }
    if (this.#socket !== socket) throw failure; // it was lost again while nobody looked
    this.#onState("connected");
  }

  #lost(failure) {
    if (this.#closed !== null) return;
    if (this.#reconnectMs <= 0 || !(failure instanceof UnreachableError)) {
      this.#end(failure);
      return;
    }
    for (const [id, asked] of this.#waiting) if (!this.#session.repeats(id)) asked.reject(failure);
    this.#connected = this.#again(failure);
    this.#connected.catch((error) => this.#end(error));
    this.#onState("reconnecting");
  }

  /** Try until the daemon answers, refuses, or `reconnectMs` are over. */
  async #again(failure) {
    const giveUpAt = performance.now() + this.#reconnectMs;
    let bound = FIRST_PAUSE_MS;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, bound * Math.random()));
      bound = Math.min(2 * bound, LONGEST_PAUSE_MS);
      if (this.#closed !== null) throw this.#closed;
      try {
        return await this.#dial();
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        if (performance.now() >= giveUpAt) throw failure;
      }
    }
  }

  #end(error) {
    if (this.#closed !== null) return;
    this.#closed = error ?? new UnreachableError("this client is closed", { code: "client.closed" });
    for (const asked of this.#waiting.values()) asked.reject(this.#closed);
    for (const wanted of this.#subscriptions.values()) for (const one of wanted) one._end(error);
    for (const consumer of this.#consumers.values()) consumer._end(error);
    this.#subscriptions.clear();
    this.#consumers.clear();
    this.#connected?.catch(() => {});
    if (error === null) this.#socket?.end();
    else this.#socket?.destroy();
    this.#onState("closed");
  }

  #deliver(delivery) {
    if (delivery.consumer !== "") {
      this.#consumers.get(delivery.consumer)?._put(delivery);
      return;
    }
    for (const [pattern, wanted] of this.#subscriptions) {
      if (matches(pattern, delivery.topic)) for (const one of wanted) one._put(delivery);
    }
  }

  /** Another session has this consumer now, and gets again what was not acknowledged. */
  #taken(name, error) {
    const consumer = this.#consumers.get(name);
    this.#consumers.delete(name);
    consumer?._end(error, { drop: true });
  }

  /** Forget a subscription; true when it was the last one of its pattern. */
  #forget(subscription) {
    const wanted = this.#subscriptions.get(subscription.pattern);
    if (wanted === undefined || !wanted.delete(subscription) || wanted.size > 0) return false;
    return this.#subscriptions.delete(subscription.pattern);
  }

  async #unsubscribe(subscription) {
    if (!this.#forget(subscription) || this.#closed !== null) return;
    const { pattern } = subscription;
    await this.#ask(() => this.#session.unsubscribe(pattern), this.#timeoutMs, "no answer to unsubscribe");
  }

  async #leave(name, options) {
    if (!this.#consumers.delete(name) || this.#closed !== null) return;
    await this.#ask(() => this.#session.leave(name, options), this.#timeoutMs, "no answer to leave");
  }
}

/** What arrives on one pattern: an async iterator. Breaking out of `for await` closes it. */
export class Subscription {
  #waiting = [];
  #taken = 0;
  #takers = [];
  #ended = false;
  #error = null;
  #onClose;

  constructor(pattern, onClose) {
    this.pattern = pattern;
    this.#onClose = onClose;
  }

  /** The oldest delivery not taken yet; `{done: true}` once closed. Throws what ended the subscription. */
  next() {
    if (this.#taken < this.#waiting.length) {
      const value = this.#waiting[this.#taken];
      this.#waiting[this.#taken++] = undefined;
      if (this.#taken > 1024 && 2 * this.#taken > this.#waiting.length) {
        this.#waiting.splice(0, this.#taken);
        this.#taken = 0;
      }
      return Promise.resolve({ value, done: false });
    }
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    const taker = deferred();
    this.#takers.push(taker);
    return taker.promise;
  }

  /** No more deliveries; unsubscribes when nobody else here wants the pattern. */
  async close(options) {
    this._end(null);
    await this.#onClose(options);
  }

  async return() {
    await this.close();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** For the client: take a delivery. */
  _put(delivery) {
    if (this.#ended) return;
    const taker = this.#takers.shift();
    if (taker !== undefined) taker.resolve({ value: delivery, done: false });
    else if (this.#waiting.length - this.#taken < MAX_WAITING) this.#waiting.push(delivery);
    else {
      this._end(
        new FailedError(`${MAX_WAITING} deliveries wait on ${this.pattern} and nobody takes them`, {
          hint: "read faster, or subscribe to less",
          code: "client.overrun",
        }),
      );
      this.#onClose().catch(() => {}); // the iterator says why; the daemon need not send more
    }
  }

  /** For the client: nothing more comes; with `drop` not even what waits. */
  _end(error, { drop = false } = {}) {
    if (this.#ended) return;
    this.#ended = true;
    if (drop) {
      this.#waiting = [];
      this.#taken = 0;
    }
    this.#error = error;
    for (const taker of this.#takers.splice(0)) {
      if (error === null) taker.resolve({ value: undefined, done: true });
      else taker.reject(error);
    }
  }
}

/** A durable consumer: a subscription whose deliveries come again until they are acknowledged. */
export class Consumer extends Subscription {
  #session;

  /** `onClose({forget})` leaves: for now, or for ever. */
  constructor(name, pattern, session, onClose) {
    super(pattern, onClose);
    this.name = name;
    this.#session = session;
  }

  /** This delivery, and all before it, are done with. */
  ack(delivery) {
    this.#session.ack(this.name, delivery.seq);
  }
}

/** Bounds a wait: `race` rejects with `client.timeout` once the time is over. */
class Deadline {
  #over = deferred();
  #timer;

  constructor(timeoutMs, what) {
    const late = () =>
      this.#over.reject(
        new UnreachableError(`${what} within ${timeoutMs} ms`, { hint: STATUS, code: "client.timeout" }),
      );
    this.#timer = setTimeout(late, timeoutMs);
  }

  race(promise) {
    return Promise.race([promise, this.#over.promise]);
  }

  clear() {
    clearTimeout(this.#timer);
  }
}

function deferred() {
  let resolve;
  let reject;
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {}); // whoever awaits it sees the error; nobody has to
  return { promise, resolve, reject };
}

function nobody(path, error) {
  return new UnreachableError(`no daemon answers on ${path}: ${error.code ?? error.message}`, {
    hint: "start it with 'rlp daemon start'",
    code: "client.unreachable",
    cause: error,
  });
}
