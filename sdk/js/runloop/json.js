"use strict";
/**
 * JSON that may leave a guest: what cannot be said in JSON is an error in words, never a silent null.
 *
 * Knows: which values travel, and how deep. Does not know: what they mean.
 */

/** Kept, because an agent that loses its JSON should still be able to say so. */
const { parse: parsed, stringify } = JSON;

/** Levels of arrays and objects. Beyond some 400 the engine's own stack would end, which is a trap. */
const MAX_DEPTH = 100;

function fault(value, path, depth) {
  switch (typeof value) {
    case "string":
      return wellFormed(value) ? "" : `${path} holds half of a surrogate pair`;
    case "boolean":
      return "";
    case "number":
      return Number.isFinite(value) ? "" : `${path} is ${value}`;
    case "object":
      break;
    default:
      return `${path} is ${value === undefined ? "undefined" : `a ${typeof value}`}`;
  }
  if (value === null) return "";
  if (depth === MAX_DEPTH) return `${path} is nested deeper than ${MAX_DEPTH} levels`;
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) {
      const found = fault(value[at], `${path}[${at}]`, depth + 1);
      if (found) return found;
    }
    return "";
  }
  if (typeof value.toJSON === "function") return fault(value.toJSON(), path, depth + 1);
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  if (kind !== "Object") return `${path} is a ${kind}`;
  for (const key of Object.keys(value)) {
    if (!wellFormed(key)) return `a key of ${path} holds half of a surrogate pair`;
    if (value[key] === undefined) continue; // as everywhere in JavaScript: a key without a value is left out
    const found = fault(value[key], `${path}.${key}`, depth + 1);
    if (found) return found;
  }
  return "";
}

/** Whether the text is free of lone surrogates, which UTF-8 cannot say. */
function wellFormed(text) {
  return typeof text.isWellFormed === "function" ? text.isWellFormed() : !/\p{Surrogate}/u.test(text);
}

/** The text with every lone surrogate replaced: for words that only people read. */
function repaired(text) {
  return wellFormed(text) ? text : text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** The value as JSON text. Throws a TypeError that names what cannot be said, starting at `what`. */
function encode(value, what) {
  const found = fault(value, what, 0);
  if (found) throw new TypeError(`${found}, which JSON cannot say`);
  return stringify(value);
}

/** Levels at which parsing is still safe; the engine's stack ends between 1500 and 2500. */
const MAX_INPUT_DEPTH = 1000;

/** JSON.parse for text of unknown depth: a SyntaxError where the engine's own stack would end. */
function parse(text) {
  const openings = text.length < MAX_INPUT_DEPTH ? 0 : text.split("[").length + text.split("{").length;
  if (openings > MAX_INPUT_DEPTH && depth(text) > MAX_INPUT_DEPTH) {
    throw new SyntaxError(`nested deeper than ${MAX_INPUT_DEPTH} levels`);
  }
  return parsed(text);
}

/** The deepest level of arrays and objects, without recursion; brackets inside strings do not count. */
function depth(text) {
  const mark = /["[\]{}]/g;
  let level = 0;
  let deepest = 0;
  for (let hit = mark.exec(text); hit !== null; hit = mark.exec(text)) {
    if (hit[0] === '"') mark.lastIndex = afterString(text, mark.lastIndex);
    else if (hit[0] === "[" || hit[0] === "{") deepest = Math.max(deepest, ++level);
    else level--;
  }
  return deepest;
}

/** Where the string that begins at `from` has ended; the end of the text when it does not. */
function afterString(text, from) {
  for (let at = text.indexOf('"', from); at >= 0; at = text.indexOf('"', at + 1)) {
    let escapes = at;
    while (escapes > from && text[escapes - 1] === "\\") escapes--;
    if ((at - escapes) % 2 === 0) return at + 1;
  }
  return text.length;
}

module.exports = { MAX_DEPTH, encode, parse, parsed, repaired, stringify, wellFormed };
