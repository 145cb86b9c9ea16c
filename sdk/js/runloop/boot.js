"use strict";
/**
 * One sandbox, from the gate to an answer: shim the library, fetch the source at the first task, serve.
 *
 * Knows: the order of things. Does not know: which engine runs it; the runner (sdk/js/runner) and testing.js
 * each bring theirs.
 */

const { Host } = require("./host.js");
const { Program, errorText } = require("./guest.js");
const { install } = require("./shim.js");

/** `transport(op, payload)` answers `[ok, text]`. Returns `handle(input)` -> `[ok, text]`, which never throws. */
function boot(scope, transport, engine) {
  const host = new Host(transport);
  const shim = install(scope, host);
  let program = null;
  return (input) => {
    try {
      if (program === null) {
        const { modules, entrypoint } = host.call("agent.source");
        program = new Program(modules, entrypoint, engine);
      }
      return program.handle(input, host, shim);
    } catch (error) {
      return [false, errorText(error, () => "")];
    }
  };
}

module.exports = { boot };
