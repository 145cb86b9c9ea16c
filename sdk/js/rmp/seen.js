/**
 * Which message ids were seen lately: two generations of keys, bounded in number and age.
 *
 * Knows: the key (who published, trace, message id) and when it is forgotten. Does not know: what to do about
 * a frame that comes twice; whoever handles deliveries at least once asks here.
 */

/** Remembers at least the last `capacity` keys of the last `maxAgeMs`, at most twice as many. */
export class Seen {
  #capacity;
  #maxAgeMs;
  #young = new Map();
  #old = new Map();
  #turnedMs = 0;

  constructor({ capacity = 65_536, maxAgeMs = 30_000 } = {}) {
    this.#capacity = capacity;
    this.#maxAgeMs = maxAgeMs;
  }

  /**

   * Remember the ids; true when they are new, false when they were seen lately. `nowMs` must not go back.

   */
  first(publisher, traceId, msgId, nowMs) {
    const key = `${traceId} ${msgId} ${publisher}`;
    const seen = this.#young.get(key) ?? this.#old.get(key);
    if (seen !== undefined && nowMs - seen <= this.#maxAgeMs) return false;
    if (this.#young.size >= this.#capacity || nowMs - this.#turnedMs > this.#maxAgeMs) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#turnedMs = nowMs;
    }
    this.#young.set(key, nowMs);
    return true;
  }
}
