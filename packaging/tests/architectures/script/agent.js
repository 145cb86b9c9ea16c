"use strict";
const { Result, handler } = require("runloop");

const POINTS = [0.1, 0.5, 1.5, Math.E, 10.75, 1e22, 5e-324, Number.MAX_VALUE];
const NAMES = "sin cos tan asinh atan exp expm1 log log1p log2 cbrt sqrt tanh".split(" ");

function bits(value) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return [0, 4].map((at) => view.getUint32(at).toString(16).padStart(8, "0")).join("");
}

exports.handle = handler(() => {
  let x = 0.123456789;
  for (let turn = 0; turn < 100000; turn += 1) x = 3.9999 * x * (1 - x);
  return Result.of({
    out: {
      functions: Object.fromEntries(NAMES.map((name) => [name, POINTS.map((at) => bits(Math[name](at)))])),
      walk: bits(x),
      pow: [2, 50, 700].map((n) => bits(1.1 ** n)),
      text: Array.from({ length: 40 }, (_, n) => String((n + 1) / 7)),
      fround: bits(Math.fround(5.05)),
      ints: [1 / 3 | 0, -7 % 3, 2 ** 31 >> 1, Math.imul(0xffffffff, 5), (0.1 + 0.2).toFixed(20)],
      order: Object.keys({ b: 1, 2: 1, a: 1, 1: 1 }),
      sorted: ["z", "Z", "\u00e9", "a", "\u{1f600}", "10", "9"].sort(),
      nan: [bits(NaN), bits(0 / 0), bits(Math.sqrt(-1)), bits(-Math.sqrt(-1))],
    },
  });
});
