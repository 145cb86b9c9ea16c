// Types of the two modules that an agent and its tests can require, and of what the sandbox has beside the
// language. Written for TypeScript 4.8 and later.

declare module "runloop" {
  /** End the attempt on purpose: the work cannot be done, and here is why, in words for a person. */
  export class Fail extends Error {
    readonly code: string;
    /** Allows the engine to try again as the opening's `retry` says. */
    readonly retryable: boolean;
    constructor(code: string, message: string, retryable?: boolean);
  }

  /** The gate refused or could not do a host call. Nothing else happened; the agent may go on. */
  export class HostRefused extends Error {
    readonly code: string;
    /** How to obtain the right. */
    readonly hint: string | null;
    /** Whether the same call may succeed later. */
    readonly retryable: boolean;
    readonly op: string;
  }

  /** One piece of work: what arrived on the ports, what the opening's `with` says, and for whom. */
  export class Task {
    readonly ports: { readonly [port: string]: readonly unknown[] };
    readonly with: { readonly [name: string]: unknown };
    /** `agent`, `node`, `attempt`, `run`, `trace_id`, and `deadline_ms` where there is one. */
    readonly context: { readonly [name: string]: unknown };
    /** The envelope that asked: `type`, `payload`, `meta`. */
    readonly message: { readonly [name: string]: unknown };
    /** The last value on a port; without a fallback, a port that got none fails the attempt. */
    port<T = unknown>(name: string, fallback?: T): T;
    /** Every value on a port, in order; empty when none arrived. */
    all<T = unknown>(name: string): T[];
    /** A value of the `with` block; without a fallback, a missing one fails the attempt. */
    param<T = unknown>(name: string, fallback?: T): T;
  }

  /** What an attempt produced. */
  export class Result {
    /** Output port -> list of values. */
    readonly ports: { readonly [port: string]: readonly unknown[] };
    /** Digests that `host.putArtifact` returned. */
    readonly artifacts: readonly string[];
    constructor(parts?: { ports?: { [port: string]: readonly unknown[] }; artifacts?: readonly string[] });
    /** One value for each named port. */
    static of(values: { [port: string]: unknown }, artifacts?: readonly string[]): Result;
  }

  /** An object is `{port: value}`. Not async: host calls answer at once, and nothing settles a promise. */
  export type Handler = (task: Task, host: Host) => Result | { [port: string]: unknown };

  /** Declare the function that serves tasks. */
  export function handler<H extends Handler>(serve: H): H;

  /** A JSON Schema. */
  export type Schema = { readonly [keyword: string]: unknown };

  /** Declare a tool, `family.verb`. `input` describes the arguments, `result` what it returns (JSON). */
  export function tool<Args = any, Value = unknown>(
    id: string,
    about: { description?: string; input: Schema; result?: Schema },
    serve: (args: Args, host: Host) => Value,
  ): (args: Args, host: Host) => Value;

  export type Level = "debug" | "info" | "warning" | "error";
  export type Message = { role: "system" | "user" | "assistant"; content: string };
  export type Found = {
    kind: "contact" | "note" | "mail";
    id: string;
    title: string;
    snippet: string;
    score: number;
    event: number;
  };
  export type ToolInfo = {
    id: string;
    description: string;
    input_schema: Schema;
    result_schema: Schema | null;
    granted: boolean;
    missing: string[];
  };

  /** What a model, or the offline rules provider standing in for one, answered. */
  export class Completion {
    readonly text: string;
    readonly provider: string;
    readonly model: string;
    /** False when no language model wrote the text. */
    readonly generated: boolean;
    readonly finish: string;
    /** The whole answer, with usage and cost where the provider reports them. */
    readonly raw: { readonly [name: string]: unknown };
    /** The text parsed as JSON; for calls that gave a `jsonSchema`. */
    json<T = unknown>(): T;
  }

  /** What a web server answered, as it is on record. Any status is an answer. */
  export class Response {
    readonly status: number;
    /** True for a status of 200 to 299. */
    readonly ok: boolean;
    /** Where the answer came from, after redirects. */
    readonly url: string;
    /** The few that describe the body; names in lower case. */
    readonly headers: { readonly [name: string]: string };
    /** The body was cut at `maxBytes`. */
    readonly truncated: boolean;
    bytes(): Uint8Array;
    text(): string;
    json<T = unknown>(): T;
  }

  export type Asked = { model?: string; maxTokens?: number; temperature?: number };

  /** The gate, as a guest sees it. Every method may throw a HostRefused. */
  export class Host {
    /** Any host call by name: JSON arguments in, JSON answer out. */
    call(op: string, args?: { [name: string]: unknown }): any;

    /** Unix time in milliseconds, as recorded for this run. Needs capability `time`. */
    nowMs(): number;
    /** `n` random bytes, recorded for replay. Needs capability `random`. */
    randomBytes(n: number): Uint8Array;
    /** One log line of this run. */
    log(message: string, level?: Level, fields?: { [name: string]: unknown }): void;
    /** Tell the person watching; `fraction` is 0 to 1, or null when it is not known. */
    progress(message: string, fraction?: number | null): void;

    /** Best matches first. */
    kbSearch(query: string, options?: { k?: number; kinds?: Found["kind"][] }): Found[];
    /** Rows of one read-only SELECT over the views, as objects by column name. */
    kbQuery<Row = { [column: string]: any }>(sql: string, params?: unknown[], options?: { limit?: number }): Row[];
    /** One whole contact or document. */
    kbRead(kind: "contact" | "document", id: string): any;
    /** Where a fact came from: the chain of events behind `ref`. */
    kbWhy(ref: string): any;
    /** Offer a fact to the knowledge base. Needs capability `kb_write`. */
    kbPropose(kind: string, payload: { [name: string]: unknown }): { kind: string; id: string };

    /** Version 0 was never written. */
    memoryGet<T = unknown>(key: string, options?: { namespace?: string }): { value: T | null; version: number };
    /** Write and return the new version. `expectedVersion` makes it conditional (0: must not exist). */
    memoryPut(key: string, value: unknown, options?: { namespace?: string; expectedVersion?: number | null }): number;
    /** Keep a file this run produced; returns its digest, for the result's `artifacts`. */
    putArtifact(name: string, content: string | Uint8Array, options?: { mediaType?: string }): string;
    /** Up to `length` bytes of a stored blob from `offset`. */
    blobRead(digest: string, options?: { offset?: number; length?: number }): Uint8Array;

    /** Ask a model. `template` and `facts` are what the offline rules provider fills in instead. */
    complete(
      messages: string | Message[],
      options?: Asked & { jsonSchema?: Schema; template?: string; facts?: { [name: string]: unknown } },
    ): Completion;
    /** As `complete`, but yields the chunks as they arrive. */
    completeStream(messages: string | Message[], options?: Asked): IterableIterator<any>;
    /** The next item of a stream, or null at its end. */
    nextMessage(stream: string): any;

    /** One HTTP exchange. Needs capability `net` for the host; GET and HEAD only read. */
    fetch(
      url: string,
      options?: {
        method?: string;
        headers?: { [name: string]: string };
        body?: string | Uint8Array | null;
        maxBytes?: number | null;
      },
    ): Response;
    /** The agent's own tools. */
    tools(): ToolInfo[];
    /** Call one of the agent's own tools; the answer fits the tool's `result_schema`. */
    callTool(tool: string, args?: { [name: string]: unknown }): any;

    /** Send a message, after a person approved its exact bytes. Needs capability `mail`. */
    sendMail(mail: {
      to: string[];
      subject: string;
      body: string;
      cc?: string[];
      bcc?: string[];
      inReplyTo?: string | null;
    }): { status: string; message_id: string; [name: string]: unknown };
  }
}

declare module "runloop/testing" {
  export type Call = { op: string; args: any };
  /** A scripted answer that refuses: the agent sees a HostRefused. */
  export class Refuse {
    constructor(code: string, message?: string, more?: { hint?: string | null; retryable?: boolean });
  }
  /** Answers host calls from a script; what is not scripted fails the test. */
  export class FakeHost {
    constructor(answers?: { [op: string]: unknown });
    readonly calls: Call[];
    made(op: string): any[];
  }
  export class Outcome {
    readonly ok: boolean;
    readonly ports: { [port: string]: any[] };
    readonly artifacts: string[];
    readonly code: string;
    readonly message: string;
    readonly retryable: boolean;
    value(port: string): any;
  }
  export class AgentUnderTest {
    run(asked?: {
      ports?: { [port: string]: unknown[] };
      with?: { [name: string]: unknown };
      context?: { [name: string]: unknown };
      host?: FakeHost;
    }): Outcome;
    callTool(tool: string, args?: { [name: string]: unknown }, host?: FakeHost): Outcome;
    describe(): { tools: any[] };
  }
  /** Read an agent from its folder; of TypeScript, what `rlp agent test` compiled. */
  export function loadAgent(folder: string): AgentUnderTest;
  /** Make a node:test of every case in tests/cases.toml. */
  export function testCases(agent: AgentUnderTest): void;
}

/** Every line becomes a `log.write` of the run. */
declare const console: {
  debug(...values: unknown[]): void;
  trace(...values: unknown[]): void;
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  dir(value: unknown): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
  assert(condition: unknown, ...values: unknown[]): void;
};
/** Recorded time, in milliseconds. */
declare const performance: { now(): number; readonly timeOrigin: number };
/** Recorded randomness. */
declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  randomUUID(): string;
};
declare function atob(text: string): string;
declare function btoa(text: string): string;
declare class TextEncoder {
  readonly encoding: string;
  encode(text?: string): Uint8Array;
}
/** UTF-8 only. */
declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  decode(bytes?: ArrayBufferView | ArrayBuffer): string;
}
