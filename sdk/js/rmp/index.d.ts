// Types of RMP v0 for programs in JavaScript and TypeScript. Written for TypeScript 4.8 and later.

/** What travels: integers beyond 2^53 are bigints, a map with a key that is no text is a Map. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Float
  | Value[]
  | Map<Value, Value>
  | { [key: string]: Value | undefined };

/** The keys of `meta` that have a meaning; others are kept. */
export interface Meta {
  topic?: string;
  reply_to?: string;
  conversation?: string;
  correlation?: string;
  performative?: string;
  traceparent?: string;
  priority?: number;
  max_hops?: number;
  tags?: string[];
  opening_id?: Uint8Array | number | bigint;
  receipt?: boolean;
  [key: string]: Value | undefined;
}

// --- the client -----------------------------------------------------------------------------------------

/** What the directory shows of a program. */
export interface About {
  version?: string;
  serves?: string[];
  capabilities?: string[];
  heartbeat_ms?: number;
  [key: string]: Value | undefined;
}

export interface ConnectOptions {
  /** The daemon's socket. */
  path: string;
  /** The 32 bytes that make this session an operator's; without them it is a peer. */
  credential?: Uint8Array | null;
  /** How the daemon's lists call this program. */
  client?: string;
  /** The build to say hello with: the daemon speaks to its own only. */
  build?: string;
  /** 32 secret bytes that make this publisher one over all its runs; drawn anew when there are none. */
  instance?: Uint8Array;
  about?: About;
  /** Bound of hello, subscribe, unsubscribe and ping. Default 5000. */
  timeoutMs?: number;
  /** For how long to try again after a loss; 0 for never. Default 60000. */
  reconnectMs?: number;
  /** Hears of losses and returns. */
  onState?: (state: "connected" | "reconnecting" | "closed") => void;
  /** Unix milliseconds. Default Date.now. */
  nowMs?: () => number;
}

/** One frame that the daemon delivered. */
export interface Delivery<Payload = any> {
  topic: string;
  type: string;
  payload: Payload;
  meta: Meta;
  /** The run it belongs to; 0n for none. */
  traceId: bigint;
  msgId: bigint;
  schemaId: number;
  /** The durable consumer it is for; empty for an ordinary subscription. */
  consumer: string;
  /** Place in the ledger, on durable topics; 0 elsewhere. */
  seq: number;
  /** Who published it, on durable topics, as the daemon stamped it. */
  publisher: string;
}

/** What became of a publish. */
export interface Receipt {
  receivers: number;
  msgId: bigint;
  /** Place in the ledger, on durable topics; 0 elsewhere. */
  seq: number;
  /** It was recorded by an earlier attempt already. */
  duplicate: boolean;
}

export interface PublishOptions {
  meta?: Meta;
  traceId?: bigint;
  ttlMs?: number;
  timeoutMs?: number;
  /** The topic is durable: the message is sent again, under the same ids, until it is in the ledger, once. */
  durable?: boolean;
}

/** Connect and say hello. Throws UnreachableError when nobody answers, RefusedError for another build. */
export function connect(options: ConnectOptions): Promise<Client>;

/** A connected session. Made by `connect`. */
export class Client {
  constructor(options: ConnectOptions);
  /** `operator` or `peer`: what the daemon takes this session for. */
  readonly principal: string;
  /** This session's private topic, for `meta.reply_to`; another one after each reconnection. */
  readonly replyTopic: string;
  /** Ask the daemon; an error that it answers is thrown as the family it was. */
  call<Result = any>(
    method: string,
    params?: { [name: string]: Value | undefined },
    options?: { timeoutMs?: number; idempotent?: boolean },
  ): Promise<Result>;
  /** The daemon's clock, unix milliseconds. */
  ping(options?: { timeoutMs?: number }): Promise<number>;
  /** Say anew what the directory shows of this program. */
  announce(about: About, options?: { timeoutMs?: number }): Promise<void>;
  /** Publish one frame and wait until the bus has routed it, or the ledger has it. */
  publish(topic: string, type: string, payload: Value, options?: PublishOptions): Promise<Receipt>;
  /** Publish with `reply_to` and return the answer of whoever serves the topic. */
  request<Result = any>(
    topic: string,
    type: string,
    payload: Value,
    options?: { traceId?: bigint; timeoutMs?: number },
  ): Promise<Result>;
  /** Have frames on `pattern` delivered; in force when this returns. */
  subscribe<Payload = any>(pattern: string, options?: { timeoutMs?: number }): Promise<Subscription<Payload>>;
  /** Take up a durable consumer: every message, in order, each once, until it is acknowledged. */
  consume<Payload = any>(
    name: string,
    pattern: string,
    options?: { start?: "first" | "next"; timeoutMs?: number },
  ): Promise<Consumer<Payload>>;
  /** Hang up once what was asked is written. */
  close(): void;
}

/** What arrives on one pattern. Breaking out of `for await` closes it. */
export class Subscription<Payload = any> implements AsyncIterableIterator<Delivery<Payload>> {
  protected constructor(pattern: string, onClose: (options?: { forget?: boolean }) => Promise<void>);
  readonly pattern: string;
  next(): Promise<IteratorResult<Delivery<Payload>, undefined>>;
  return(): Promise<IteratorResult<Delivery<Payload>, undefined>>;
  close(): Promise<void>;
  [Symbol.asyncIterator](): this;
}

/**
 * A durable consumer: a subscription whose deliveries come again until they are acknowledged. Ends with
 * `bus.consumer_taken` when another session takes it up.
 */
export class Consumer<Payload = any> extends Subscription<Payload> {
  readonly name: string;
  /** This delivery, and all before it, are done with. */
  ack(delivery: Delivery<Payload>): void;
  /** Leave: for now, or (`forget`) for ever. */
  close(options?: { forget?: boolean }): Promise<void>;
}

// --- errors ---------------------------------------------------------------------------------------------

/** Root of every error this package throws on purpose. */
export class RunloopError extends Error {
  constructor(
    message: string,
    options?: { hint?: string | null; code?: string; data?: { [key: string]: any }; cause?: unknown },
  );
  /** Stable, for programs: `client.lost`. */
  readonly code: string;
  readonly family: string;
  /** The next thing to type or change. */
  readonly hint: string | null;
  readonly data: { [key: string]: any };
}
/** The work was tried and failed. Look at the reason, then try again. */
export class FailedError extends RunloopError {}
/** The input is wrong. Nothing was done; correct it. */
export class UsageError extends RunloopError {}
/** Nobody answers at the other end. Start it, or look at the address. */
export class UnreachableError extends RunloopError {}
/** Policy says no. Asking again changes nothing; the hint says who can change the policy. */
export class RefusedError extends RunloopError {}
/** A person must decide first. */
export class ParkedError extends RunloopError {}
/** Two things that must be equal are not: a replay, a chain, a digest. */
export class DivergenceError extends RunloopError {}
/** The named thing does not exist here. */
export class NotFoundError extends RunloopError {}
/** Somebody else changed it first. Read again, decide again. */
export class ConflictError extends RunloopError {}
/** A frame or a body that the protocol refuses; its `name` is the same in every language. */
export class WireError extends UsageError {}
export class InvalidMagic extends WireError {}
export class UnsupportedVersion extends WireError {}
export class TruncatedHeader extends WireError {}
export class InvalidHeaderFlags extends WireError {}
export class LengthMismatch extends WireError {}
export class UnknownSchema extends WireError {}
export class BodyTooLarge extends WireError {}
export class InvalidTtl extends WireError {}
export class InvalidExpiry extends WireError {}
export class Expired extends WireError {}
export class Duplicate extends WireError {}
export class BodyDecodeError extends WireError {}
export class BodyTypeMismatch extends WireError {}
export class Incomplete extends WireError {}
/** Every refusal of the wire, in the order of its specification. */
export const NAMED_ERRORS: readonly (typeof WireError)[];
/** The error that the daemon sent as `{code, family, message, hint, data}`. */
export function fromWire(error: unknown): RunloopError;
/** Whether a decoded value is a map with texts as keys. */
export function isRecord(value: unknown): value is { [key: string]: any };

// --- the codec ------------------------------------------------------------------------------------------

export const HEADER_LEN: number;
/** Largest body by default, in bytes. */
export const MAX_BODY: number;
export const DEFAULT_TTL_MS: number;

/** One frame, header checked, body not looked at. */
export class Frame {
  constructor(
    schemaId: number,
    createdAtMs: bigint,
    ttlMs: bigint,
    traceId: bigint,
    msgId: bigint,
    body: Uint8Array,
  );
  readonly schemaId: number;
  readonly createdAtMs: bigint;
  readonly ttlMs: bigint;
  readonly traceId: bigint;
  readonly msgId: bigint;
  /** A view of what was fed. */
  readonly body: Uint8Array;
  readonly expiresAtMs: bigint;
  checkExpiry(nowMs: number | bigint): void;
}

export function encodeFrame(fields: {
  schemaId: number;
  body: Uint8Array;
  createdAtMs: number | bigint;
  msgId: number | bigint;
  traceId?: number | bigint;
  ttlMs?: number | bigint;
  maxBody?: number;
}): Uint8Array;
export function decodeFrame(data: Uint8Array, options?: { maxBody?: number }): Frame;

/** Cuts a byte stream into frames. No I/O, no clock; one instance per connection and direction. */
export class FrameReader {
  constructor(options?: { maxBody?: number });
  readonly error: WireError | null;
  readonly pending: number;
  readonly missing: number;
  feed(data: Uint8Array): Frame[];
  close(): void;
}

/** A decoded body. */
export class Envelope {
  constructor(type: string, payload: any, meta: Meta | Map<Value, Value>);
  readonly type: string;
  readonly payload: any;
  readonly meta: any;
  readonly topic: string | null;
}

export function encodeEnvelope(
  type: string,
  payload: Value,
  meta?: Meta | Map<Value, Value> | null,
): Uint8Array;
export function decodeEnvelope(body: Uint8Array, options?: { exact?: boolean }): Envelope;
export function openFrame(frame: Frame, options?: { exact?: boolean }): Envelope;
export function checkType(schemaId: number, envelope: Envelope): void;
export function schemaId(type: string): number;
export function encodeMessage(
  type: string,
  payload: Value,
  options: {
    msgId: number | bigint;
    nowMs: number | bigint;
    topic?: string | null;
    meta?: Meta | Map<Value, Value> | null;
    traceId?: number | bigint;
    ttlMs?: number | bigint;
  },
): Uint8Array;

/** Maps and arrays inside one another, at most. */
export const MAX_DEPTH: number;
export const MAX_VALUES: number;
/** A number that is to be written as a float although it is whole. */
export class Float {
  constructor(value: number);
  readonly value: number;
}
export function encodeValue(value: Value): Uint8Array;
/** `exact` keeps the order of every map (as a Map) and tells floats (as Float). */
export function decodeValue(data: Uint8Array, options?: { exact?: boolean }): any;

export const BUILD: string;
export const FAMILIES: ReadonlySet<string>;
export const TYPES: ReadonlyMap<number, string>;
export const IDS: ReadonlyMap<string, number>;
export const THIRD_PARTY: number;

export const PROTOCOL: number;
/** The proof of the operator credential for one nonce. */
export function proof(credential: Uint8Array, nonce: Uint8Array): Uint8Array;
/** Keyed BLAKE3 of at most 1024 bytes. */
export function keyedHash(key: Uint8Array, input: Uint8Array): Uint8Array;

/** Remembers which message ids were seen lately. */
export class Seen {
  constructor(options?: { capacity?: number; maxAgeMs?: number });
  first(publisher: string, traceId: bigint, msgId: bigint, nowMs: number): boolean;
}

/** The client's half of a session, without I/O. */
export class Session {
  constructor(
    options: Pick<ConnectOptions, "credential" | "client" | "build" | "instance" | "about" | "nowMs">,
    wires: {
      write(bytes: Uint8Array): void;
      onReady(): void;
      onAnswer(id: string, error: RunloopError | null, result: any): void;
      onDelivery(delivery: Delivery): void;
      /** Another session took up this durable consumer. */
      onTaken(name: string, error: RunloopError): void;
    },
  );
  readonly ready: boolean;
  readonly principal: string;
  readonly session: string;
  readonly replyTopic: string;
  feed(data: Uint8Array): void;
  lost(): UnreachableError;
  disconnected(): void;
  repeats(id: string): boolean;
  giveUp(id: string): void;
  call(method: string, params?: object, options?: { idempotent?: boolean }): string;
  subscribe(pattern: string): string;
  unsubscribe(pattern: string): string;
  ping(): string;
  announce(about: About): string;
  consume(name: string, pattern: string, options?: { start?: "first" | "next" }): string;
  leave(name: string, options?: { forget?: boolean }): string;
  ack(name: string, seq: number): void;
  publish(topic: string, type: string, payload: Value, options?: PublishOptions): string;
  request(topic: string, type: string, payload: Value, options?: { traceId?: bigint }): string;
}

export namespace topics {
  const CTRL: string;
  const ACTION_REQUEST: string;
  const ACTION_DECISION: string;
  const DROPS: string;
  const METRICS: string;
  const MAX_TOPIC: number;
  /** `text` if it is a topic; throws UsageError otherwise. */
  function topic(text: string): string;
  /** `text` if it is a topic, `*`, or a topic and `/*`; throws UsageError otherwise. */
  function pattern(text: string): string;
  /** Whether a checked pattern covers a checked topic. */
  function matches(pattern: string, topic: string): boolean;
  function runEvents(run: string): string;
  function agent(name: string): string;
  function clientReply(session: string): string;
}
