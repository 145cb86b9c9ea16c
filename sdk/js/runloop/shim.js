"use strict";
/**
 * Makes the language's own library honest inside the sandbox: clock, chance and console go through the gate,
 * the rest of the outside world is a clear error instead of a dead instance.
 *
 * Installed once, at build time. A clock that slipped through would trap, and a prebuilt Math.random would give
 * every run of every agent the same numbers. Knows nothing of agents.
 */

const { fromUtf8, toUtf8 } = require("./bytes.js");

/** Reroute or refuse everything that a guest must not reach on its own. Returns what the loader asks of it. */
function install(scope, host) {
  clock(scope, host);
  chance(scope, host);
  talk(scope, host);
  text(scope);
  refusals(scope);
  return promises(scope);
}

function put(owner, names) {
  for (const [name, value] of Object.entries(names)) {
    Object.defineProperty(owner, name, { value, writable: true, enumerable: false, configurable: true });
  }
}

// --- time ---

function clock(scope, host) {
  const Real = scope.Date;
  function Date(...args) {
    if (new.target === undefined) return new Real(host.nowMs()).toString();
    return Reflect.construct(Real, args.length > 0 ? args : [host.nowMs()], new.target);
  }
  put(Date, { now: () => host.nowMs(), parse: Real.parse, UTC: Real.UTC });
  Object.defineProperty(Date, "length", { value: 7 });
  Object.defineProperty(Date, "prototype", { value: Real.prototype, writable: false });
  put(Real.prototype, { constructor: Date }); // or `new (new Date(0)).constructor()` would trap
  put(scope, { Date, performance: { now: () => host.nowMs(), timeOrigin: 0 } });
}

// --- chance ---

/** xoshiro128**, seeded by the gate at first use: one host call, however many numbers. */
function generator(host) {
  let state = null;
  const rotated = (word, by) => (word << by) | (word >>> (32 - by));
  return () => {
    state ??= new Int32Array(host.randomBytes(16).buffer);
    const value = Math.imul(rotated(Math.imul(state[1], 5), 7), 9) >>> 0;
    const kept = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= kept;
    state[3] = rotated(state[3], 11);
    return value;
  };
}

function chance(scope, host) {
  const next = generator(host);
  put(scope.Math, { random: () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000 });
  const getRandomValues = (array) => {
    if (!ArrayBuffer.isView(array)) throw new TypeError("getRandomValues() fills a typed array");
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    bytes.set(host.randomBytes(bytes.length));
    return array;
  };
  const randomUUID = () => {
    const bytes = host.randomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };
  put(scope, { crypto: { getRandomValues, randomUUID } });
}

// --- console ---

const LEVELS = { debug: "debug", trace: "debug", log: "info", info: "info", dir: "info", warn: "warning",
  error: "error" };

function talk(scope, host) {
  const console = {};
  for (const [name, level] of Object.entries(LEVELS)) {
    console[name] = (...args) => {
      for (const line of formatted(args).split("\n")) {
        try {
          host.log(line.replace(/\p{Surrogate}/gu, "\ufffd"), level);
        } catch {
          return; // a lost log line is not worth the attempt
        }
      }
    };
  }
  console.assert = (condition, ...args) => {
    if (!condition) console.error("Assertion failed", ...args);
  };
  put(scope, { console });
}

function formatted(args) {
  let rest = args;
  let head = "";
  if (typeof args[0] === "string" && args.length > 1) {
    rest = args.slice(1);
    head = args[0].replace(/%([sdifjoOc%])/g, (all, kind) => {
      if (kind === "%") return "%";
      if (rest.length === 0) return all;
      const value = rest[0];
      rest = rest.slice(1);
      if (kind === "c") return "";
      if (kind === "d" || kind === "f") return String(Number(value));
      if (kind === "i") return String(Math.trunc(Number(value)));
      return kind === "s" ? String(value) : shown(value);
    });
  }
  const words = rest.map((value) => (typeof value === "string" ? value : shown(value)));
  return (head === "" ? words : [head, ...words]).join(" ");
}

function shown(value) {
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

// --- text ---

function text(scope) {
  class TextEncoder {
    get encoding() {
      return "utf-8";
    }

    encode(input = "") {
      return toUtf8(String(input));
    }
  }
  class TextDecoder {
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!/^(utf-?8|unicode-1-1-utf-8)$/i.test(label)) {
        throw new RangeError(`the sandbox decodes UTF-8 only, not ${label}`);
      }
      Object.assign(this, { fatal, ignoreBOM });
    }

    get encoding() {
      return "utf-8";
    }

    decode(input = new Uint8Array()) {
      const bytes = ArrayBuffer.isView(input)
        ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
        : new Uint8Array(input);
      const found = fromUtf8(bytes, this.fatal);
      return !this.ignoreBOM && found.charCodeAt(0) === 0xfeff ? found.slice(1) : found;
    }
  }
  put(scope, { TextEncoder, TextDecoder });
}

// --- what there is not ---

const ABSENT = {
  fetch: ["network of its own", "use host.fetch()"],
  XMLHttpRequest: ["network of its own", "use host.fetch()"],
  WebSocket: ["network of its own", "use host.fetch()"],
  Worker: ["threads", "split the work into nodes of the opening"],
  setTimeout: ["clock to wait by", "use the opening's retry and timeout instead"],
  setInterval: ["clock to wait by", "use the opening's retry and timeout instead"],
  setImmediate: ["event loop", "call the function at once"],
  queueMicrotask: ["event loop", "call the function at once"],
};

function refusals(scope) {
  for (const [name, [what, instead]] of Object.entries(ABSENT)) {
    const refused = function () {
      throw new Error(`an agent has no ${what}; ${instead}`);
    };
    put(scope, { [name]: refused });
  }
}

/**
 * Nothing settles a promise in here, so whoever waits for one waits for ever, silently. Noticing it is all one
 * can do: `then` is called by code, and `await` of a promise looks at its constructor (ECMA-262, PromiseResolve).
 */
function promises(scope) {
  const { Promise } = scope;
  const { then } = Promise.prototype;
  let waits = false;
  put(Promise.prototype, {
    then(...args) {
      waits = true;
      return then.apply(this, args);
    },
  });
  Object.defineProperty(Promise.prototype, "constructor", {
    get() {
      waits = true;
      return Promise;
    },
    set(value) {
      Object.defineProperty(this, "constructor", { value, writable: true, configurable: true });
    },
    configurable: true,
  });
  return { awaited: () => waits };
}

module.exports = { install };
