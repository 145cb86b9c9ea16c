"use strict";
/**
 * Checks a tool's arguments against its input schema: types, required and unknown keys, items, enums, bounds.
 *
 * Knows: the part of JSON Schema that people write by hand. Does not know: `$ref`, `oneOf` and the like, which
 * it lets pass; the host checks the whole schema before it calls a tool.
 */

const KINDS = {
  array: Array.isArray,
  boolean: (value) => typeof value === "boolean",
  integer: Number.isInteger,
  null: (value) => value === null,
  number: (value) => typeof value === "number",
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  string: (value) => typeof value === "string",
};

/** What is wrong with the value, in words; empty when it fits. */
function misfit(schema, value, path) {
  if (typeof schema !== "object" || schema === null) return schema === false ? `${path} is not allowed` : "";
  const { type, properties = {}, required = [], items, minimum, maximum, minLength, maxLength } = schema;
  const kinds = type === undefined ? [] : [type].flat();
  if (kinds.length > 0 && !kinds.some((kind) => KINDS[kind] !== undefined && KINDS[kind](value))) {
    return `${path} must be ${kinds.join(" or ")}`;
  }
  if (Array.isArray(schema.enum) && !schema.enum.some((one) => JSON.stringify(one) === JSON.stringify(value))) {
    return `${path} must be one of ${JSON.stringify(schema.enum)}`;
  }
  if (typeof value === "number") {
    if (value < minimum) return `${path} must be at least ${minimum}`;
    if (value > maximum) return `${path} must be at most ${maximum}`;
  }
  if (typeof value === "string") {
    const length = [...value].length;
    if (length < minLength) return `${path} must have at least ${minLength} letters`;
    if (length > maxLength) return `${path} must have at most ${maxLength} letters`;
  }
  if (Array.isArray(value)) return first(value, (item, at) => misfit(items, item, `${path}[${at}]`));
  if (!KINDS.object(value)) return "";
  const lacks = required.find((name) => !has(value, name));
  if (lacks !== undefined) return `${path} has no '${lacks}'`;
  return first(Object.keys(value), (name) => {
    if (has(properties, name)) return misfit(properties[name], value[name], `${path}.${name}`);
    return schema.additionalProperties === false ? `${path} has no place for '${name}'` : "";
  });
}

function first(items, words) {
  for (let at = 0; at < items.length; at++) {
    const found = words(items[at], at);
    if (found) return found;
  }
  return "";
}

function has(owner, name) {
  return Object.prototype.hasOwnProperty.call(owner, name);
}

module.exports = { misfit };
