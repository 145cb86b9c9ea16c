/**
 * Error families, one per reaction of whoever catches them, and the named refusals of the wire.
 *
 * Knows: `code`, `hint` and `data` of every error, and how an error of the daemon is raised again here. Does
 * not know: who makes them.
 */

/** Root of every error this package throws on purpose. `hint` is the next thing to type or change. */
export class RunloopError extends Error {
  static code = "internal";
  static family = "internal";

  constructor(message, { hint = null, code, data = {}, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code ?? new.target.code;
    this.family = new.target.family;
    this.hint = hint;
    this.data = data;
  }

  get name() {
    return this.constructor.name;
  }
}

/** The work was tried and failed. Look at the reason, then try again. */
export class FailedError extends RunloopError {
  static code = "failed";
  static family = "failed";
}

/** The input is wrong. Nothing was done; correct it. */
export class UsageError extends RunloopError {
  static code = "usage";
  static family = "usage";
}

/** Nobody answers at the other end. Start it, or look at the address. */
export class UnreachableError extends RunloopError {
  static code = "unreachable";
  static family = "unreachable";
}

/** Policy says no. Asking again changes nothing; the hint says who can change the policy. */
export class RefusedError extends RunloopError {
  static code = "refused";
  static family = "refused";
}

/** A person must decide first. */
export class ParkedError extends RunloopError {
  static code = "parked";
  static family = "parked";
}

/** Two things that must be equal are not: a replay, a chain, a digest. */
export class DivergenceError extends RunloopError {
  static code = "divergence";
  static family = "divergence";
}

/** The named thing does not exist here. */
export class NotFoundError extends RunloopError {
  static code = "not_found";
  static family = "not_found";
}

/** Somebody else changed it first. Read again, decide again. */
export class ConflictError extends RunloopError {
  static code = "conflict";
  static family = "conflict";
}

const FAMILIES = new Map(
  [
    FailedError,
    UsageError,
    UnreachableError,
    RefusedError,
    ParkedError,
    DivergenceError,
    NotFoundError,
    ConflictError,
  ].map((family) => [family.family, family]),
);

/**

 * The error that the daemon sent as `{code, family, message, hint, data}`; unknown families become the root.

 */
export function fromWire(error) {
  const sent = isRecord(error) ? error : {};
  const Family = FAMILIES.get(sent.family) ?? RunloopError;
  return new Family(typeof sent.message === "string" ? sent.message : "unknown error", {
    hint: typeof sent.hint === "string" ? sent.hint : null,
    code: typeof sent.code === "string" && sent.code ? sent.code : Family.code,
    data: isRecord(sent.data) ? sent.data : {},
  });
}

/** Whether a decoded value is a map with texts as keys. */
export function isRecord(value) {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Map) &&
    !(value instanceof Uint8Array)
  );
}

/** A frame or a body that the protocol refuses. Its `name` is the same in every language. */
export class WireError extends UsageError {
  static code = "wire";
}

/** The header does not begin with `RMP0`: the other side speaks something else. */
export class InvalidMagic extends WireError {
  static code = "wire.invalid_magic";
}

/** A header version this build does not know. */
export class UnsupportedVersion extends WireError {
  static code = "wire.unsupported_version";
}

/** The length prefix promises less than a header, or the stream ended inside one. */
export class TruncatedHeader extends WireError {
  static code = "wire.truncated_header";
}

/** Flags or a reserved field are not zero. */
export class InvalidHeaderFlags extends WireError {
  static code = "wire.invalid_header_flags";
}

/** Two lengths of one frame contradict each other. */
export class LengthMismatch extends WireError {
  static code = "wire.length_mismatch";
}

/** A schema id or type that is not in the registry. */
export class UnknownSchema extends WireError {
  static code = "wire.unknown_schema";
}

/** The length prefix promises more than the cap. Nothing of it was buffered. */
export class BodyTooLarge extends WireError {
  static code = "wire.body_too_large";
}

/** A time to live of 0. */
export class InvalidTtl extends WireError {
  static code = "wire.invalid_ttl";
}

/** `createdAtMs + ttlMs` does not fit in 64 bits. */
export class InvalidExpiry extends WireError {
  static code = "wire.invalid_expiry";
}

/** The frame's time to live is over. */
export class Expired extends WireError {
  static code = "wire.expired";
}

/** The same publisher already sent this trace and message id. */
export class Duplicate extends WireError {
  static code = "wire.duplicate";
}

/** The body is not a legal envelope. */
export class BodyDecodeError extends WireError {
  static code = "wire.body_decode";
}

/** The body's type is not the one the header's schema id stands for. */
export class BodyTypeMismatch extends WireError {
  static code = "wire.body_type_mismatch";
}

/** Not an offence: the bytes end before the frame does. `data.missing` tells how many lack. */
export class Incomplete extends WireError {
  static code = "wire.incomplete";
}

/** Every refusal of the wire, in the order of its specification. */
export const NAMED_ERRORS = Object.freeze([
  InvalidMagic,
  UnsupportedVersion,
  TruncatedHeader,
  InvalidHeaderFlags,
  LengthMismatch,
  UnknownSchema,
  BodyTooLarge,
  InvalidTtl,
  InvalidExpiry,
  Expired,
  Duplicate,
  BodyDecodeError,
  BodyTypeMismatch,
  Incomplete,
]);
