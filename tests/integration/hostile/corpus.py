"""Hostile modules, written out: each a component that a stranger could ship, and what must become of it.

Most are a few lines of WebAssembly text in the frame of :mod:`tests.unit.runtime.guests`; the large ones are
generated. Nothing here is run by the test process: it only makes bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from runloopd.runtime.engine import COMPONENT_HEADER
from tests.unit.runtime.guests import EMPTY, LOOP, Texts, calling, component, saying, text_form, wat

__all__ = ["CORPUS", "Case", "nan_bits"]

GUEST_MS = 700
"""Deadline of every hostile guest."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile module."""

    make: Callable[[], bytes]
    codes: frozenset[str]
    """How it may end: codes of the attempt or of the refusal to start the run. ``ok``: it was allowed to
    live, because what it asked for was refused."""
    says: str = ""
    """Part of what the surviving guest was told."""
    ops: tuple[str, ...] = ("log.write",)
    limits: dict[str, int] = field(default_factory=dict)


def case(make: Callable[[], bytes], *codes: str, **more: object) -> Case:
    return Case(make=make, codes=frozenset(codes), **more)  # type: ignore[arg-type]


def with_text(body: str, *, extra: str = "", **shape: object) -> bytes:
    """A guest that answers an empty result at ``$done``, whatever ``body`` does before."""
    texts = Texts()
    done = f"(call $ok {texts(EMPTY)})"
    return component(f"{body} {done}", texts, extra=extra, **shape)


def replaced(text: str, old: str, new: str) -> bytes:
    assert old in text, old
    return wat(text.replace(old, new))


def nested(count: int, use: str, *, op: str = "log.write") -> bytes:
    """A guest that builds ``[[[…]]]`` and uses it as ``result`` or as the arguments of a call."""
    texts = Texts()
    build = f"""
      (local $at i32)
      (local.set $at (i32.mul (memory.size) (i32.const 65536)))
      (drop (memory.grow (i32.const {2 * count // 65536 + 2})))
      (memory.fill (local.get $at) (i32.const 91) (i32.const {count}))
      (memory.fill (i32.add (local.get $at) (i32.const {count})) (i32.const 93) (i32.const {count}))"""
    span = f"(local.get $at) (i32.const {2 * count})"
    if use == "result":
        return component(f"{build} (call $ok {span})", texts)
    call = f"(call $call {texts(op)} {span} (i32.const 32))"
    return component(f"{build} {call} (call $ok {texts(EMPTY)})", texts)


def giant_argument(size: int) -> bytes:
    """A guest that passes ``size`` bytes of text to a call and returns what it was told."""
    texts = Texts()
    head, tail = '{"ports":{"out":[', "]}}"
    a, b, op = texts(head), texts(tail), texts("log.write")
    return component(
        f"""
      (local $at i32) (local $len i32)
      (local.set $at (i32.mul (memory.size) (i32.const 65536)))
      (drop (memory.grow (i32.const {size // 65536 + 2})))
      (memory.fill (local.get $at) (i32.const 32) (i32.const {size}))
      (call $call {op} (local.get $at) (i32.const {size}) (i32.const 32))
      (local.set $len (i32.load (i32.const 40)))
      (memory.copy (local.get $at) {a})
      (memory.copy (i32.add (local.get $at) (i32.const {len(head)}))
                   (i32.load (i32.const 36)) (local.get $len))
      (memory.copy (i32.add (local.get $at) (i32.add (i32.const {len(head)}) (local.get $len))) {b})
      (call $ok (local.get $at) (i32.add (local.get $len) (i32.const {len(head) + len(tail)})))""",
        texts,
    )


def giant_result(size: int) -> bytes:
    return component(
        f"""
      (local $at i32)
      (local.set $at (i32.mul (memory.size) (i32.const 65536)))
      (drop (memory.grow (i32.const {size // 65536 + 2})))
      (memory.fill (local.get $at) (i32.const 32) (i32.const {size}))
      (call $ok (local.get $at) (i32.const {size}))"""
    )


def raw_call(op: str, payload: str) -> bytes:
    """A guest that passes these ``ptr len`` pairs to the host."""
    return with_text(f"(call $call {op} {payload} (i32.const 32))")


def storm(op: str, args: str) -> bytes:
    """A guest that does nothing but call."""
    texts = Texts()
    call = f"(call $call {texts(op)} {texts(args)} (i32.const 32))"
    return component(f"(loop $for_ever {call} (br $for_ever)) (unreachable)", texts)


def exports(count: int) -> bytes:
    return with_text("", extra="".join(f'(func (export "e{n}"))' for n in range(count)))


def functions(count: int) -> bytes:
    return with_text("", extra="(func (nop))" * count)


def imports(count: int) -> bytes:
    """A component with so many imports, encoded by hand: the parser of the text form takes minutes."""
    kind = b"\x40\x00\x01\x00"  # func() without a result
    rows = b"".join(
        b"\x00" + _leb(len(name)) + name + b"\x01\x00" for name in (b"a%d" % n for n in range(count))
    )
    return COMPONENT_HEADER + _section(7, _leb(1) + kind) + _section(10, _leb(count) + rows)


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _section(number: int, content: bytes) -> bytes:
    return bytes([number]) + _leb(len(content)) + content


def deep_types(depth: int) -> bytes:
    rows = "".join(f"(type $t{n} (list $t{n - 1}))" for n in range(1, depth))
    return wat(f"(component (type $t0 (list u8)) {rows})")


def wide_type(count: int) -> bytes:
    fields = " ".join(f'(field "f{n}" u8)' for n in range(count))
    return wat(f"(component (type (record {fields})))")


def nested_blocks(depth: int) -> bytes:
    return with_text("", extra=f"(func {'(block ' * depth}{')' * depth})")


def big_data(size: int) -> bytes:
    """A data segment of that many bytes, far beyond the memory it is meant for."""
    return with_text("", extra=f'(data (i32.const 65536) "{"x" * size}")')


def good() -> bytes:
    return saying({"ports": {"out": [1]}})


def mutated(seed: int, flips: int) -> bytes:
    """A good component with some bytes changed behind its header."""
    dice = random.Random(seed)
    wasm = bytearray(calling("log.write", '{"message":"x"}', times=3))
    for _ in range(flips):
        wasm[dice.randrange(8, len(wasm))] = dice.randrange(256)
    return bytes(wasm)


WILD_REALLOC = "(i32.const -16)))\n  (core instance $libc"

DEADLINE = "guest.deadline"
TRAP = "guest.trap"
NO_COMPONENT = "component.refused"
NO_COMPILE = "component.compile"

CORPUS: dict[str, Case] = {
    # --- that never end
    "loop": case(lambda: component(LOOP), DEADLINE),
    "loop_in_start": case(
        lambda: component("(unreachable)", extra="(func $f (loop $l (br $l))) (start $f)"), DEADLINE
    ),
    "loop_of_calls": case(lambda: storm("log.write", '{"message":"x"}'), DEADLINE, "quota.exceeded"),
    "loop_of_refused_calls": case(lambda: storm("mail.send", "{}"), DEADLINE, "quota.exceeded"),
    "loop_of_nonsense": case(lambda: storm("no.such.op", "not json"), DEADLINE, "quota.exceeded"),
    # --- that grow
    "recursion": case(
        lambda: component("(call $f)", extra="(func $f (result i32) (i32.add (call $f) (i32.const 1)))"), TRAP
    ),
    "memory_growth": case(
        lambda: component(
            "(loop $m (br_if $m (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"
        ),
        "guest.memory",
    ),
    "memory_growth_touching": case(
        lambda: component(
            """(local $at i32)
            (loop $m
              (local.set $at (i32.mul (memory.size) (i32.const 65536)))
              (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
                (then (memory.fill (local.get $at) (i32.const 1) (i32.const 65536)) (br $m))))
            (unreachable)"""
        ),
        "guest.memory",
    ),
    "table_growth": case(
        lambda: component(
            "(loop $m (br_if $m (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1))))"
            " (unreachable)",
            extra="(table $t 0 funcref)",
        ),
        TRAP,
        "guest.memory",
    ),
    "four_gigabytes": case(lambda: component("(unreachable)", pages=65_536), "guest.memory"),
    "huge_table": case(
        lambda: with_text("", extra="(table 4294967295 funcref)"), "guest.memory", TRAP, NO_COMPONENT
    ),
    "many_memories": case(
        lambda: with_text("", extra="".join(f"(memory $m{n} 1)" for n in range(90))),
        "guest.memory",
        TRAP,
        NO_COMPONENT,
    ),
    # --- that are large
    "huge_data": case(lambda: big_data(8 << 20), TRAP, "guest.memory"),
    "many_data_segments": case(
        lambda: with_text("", extra='(data (i32.const 0) "x")' * 90_000), "ok", NO_COMPONENT, NO_COMPILE
    ),
    "many_exports": case(lambda: exports(100_000), "ok", NO_COMPONENT, NO_COMPILE),
    "many_functions": case(lambda: functions(100_000), "ok", NO_COMPONENT, NO_COMPILE),
    "many_imports": case(lambda: imports(100_000), NO_COMPONENT, NO_COMPILE),
    "many_locals": case(lambda: with_text("", extra=f"(func {'(local i64)' * 49_000})"), "ok", NO_COMPONENT),
    "deep_types": case(lambda: deep_types(50_000), NO_COMPONENT, NO_COMPILE),
    "wide_type": case(lambda: wide_type(9_000), NO_COMPONENT, NO_COMPILE),
    "deep_blocks": case(lambda: nested_blocks(20_000), "ok", NO_COMPONENT, NO_COMPILE),
    # --- that are not what they say
    "empty": case(lambda: b"", NO_COMPONENT),
    "text": case(lambda: text_form("(unreachable)").encode(), NO_COMPONENT),
    "core_module": case(lambda: wat("(module)"), NO_COMPONENT),
    "native_code": case(lambda: b"\x7fELF\x02\x01\x01" + bytes(4096), NO_COMPONENT),
    "truncated": case(lambda: good()[:-40], NO_COMPONENT),
    "appended": case(lambda: good() + b"\0" * 64, NO_COMPONENT, "ok"),
    "header_only": case(lambda: good()[:8], NO_COMPONENT),
    "foreign_import": case(
        lambda: wat('(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))'), NO_COMPONENT
    ),
    **{
        f"mutated_{seed}": case(
            lambda seed=seed: mutated(seed, 1 + seed % 5),  # type: ignore[misc]
            "ok",
            NO_COMPONENT,
            NO_COMPILE,
            TRAP,
            DEADLINE,
            "guest.error",
            "guest.memory",
            "guest.output",
        )
        for seed in range(6)
    },
    # --- that lie about memory
    "wild_pointer": case(
        lambda: raw_call("(i32.const -8) (i32.const 64)", "(i32.const 0) (i32.const 2)"), TRAP
    ),
    "wild_length": case(
        lambda: raw_call("(i32.const 0) (i32.const 4)", "(i32.const 0) (i32.const -1)"), TRAP
    ),
    "wild_result": case(lambda: component("(i32.const -4)"), TRAP),
    "unaligned_result": case(lambda: component("(i32.const 17)"), TRAP),
    "bad_utf8": case(lambda: calling("log.write", bytes([0x22, 0xED, 0xA0, 0x80, 0x22])), TRAP),
    "wild_realloc": case(
        lambda: replaced(
            text_form(f"(call $ok {(t := Texts())(EMPTY)})", t),
            "(local.get $at)))\n  (core instance $libc",
            WILD_REALLOC,
        ),
        TRAP,
    ),
    # --- that talk too much
    "giant_argument": case(lambda: giant_argument(6 << 20), "ok", says="request.too_large"),
    "giant_result": case(lambda: giant_result(6 << 20), "guest.output"),
    "nested_result": case(lambda: nested(100_000, "result"), "guest.output"),
    "nested_argument": case(lambda: nested(100_000, "argument"), "ok"),
}


def nan_bits() -> bytes:
    """A guest that makes NaNs in a dozen ways and returns their bits: what a processor is free to choose."""
    ways = [
        "(f64.div (f64.const 0) (f64.const 0))",
        "(f64.sqrt (f64.const -1))",
        "(f64.sub (f64.const inf) (f64.const inf))",
        "(f64.mul (f64.const 0) (f64.const inf))",
        "(f64.add (f64.const nan:0x8000000000123) (f64.const 1))",
        "(f64.add (f64.const 1) (f64.const -nan:0xf00000000abcd))",
        "(f64.add (f64.const nan:0x8000000000123) (f64.const -nan:0xf00000000abcd))",
        "(f64.min (f64.const nan:0x9000000000001) (f64.const 2))",
        "(f64.max (f64.const 2) (f64.const -nan:0x9000000000001))",
        "(f64.promote_f32 (f32.div (f32.const 0) (f32.const 0)))",
        "(f64.ceil (f64.const -nan:0xf000000000001))",
        "(f64.promote_f32 (f32.demote_f64 (f64.const -nan:0xf123456789abc)))",
    ]
    texts = Texts()
    head, tail = '{"ports":{"out":["', '"]}}'
    a, b = texts(head), texts(tail)
    stores = "".join(
        f"(call $hex (i32.const {4096 + len(head) + 16 * n}) (i64.reinterpret_f64 (call $op{n})))"
        for n in range(len(ways))
    )
    # Functions of their own: nothing here is folded away when it is compiled.
    operations = "".join(f"(func $op{n} (result f64) {way})" for n, way in enumerate(ways))
    hexadecimal = """
      (func $hex (param $at i32) (param $bits i64) (local $n i32) (local $digit i32)
        (loop $next
          (local.set $digit (i32.wrap_i64 (i64.and (i64.shr_u (local.get $bits)
            (i64.extend_i32_u (i32.mul (i32.sub (i32.const 15) (local.get $n)) (i32.const 4))))
            (i64.const 15))))
          (i32.store8 (i32.add (local.get $at) (local.get $n))
            (i32.add (local.get $digit)
              (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
          (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16)))))"""
    size = len(head) + 16 * len(ways) + len(tail)
    return component(
        f"""(memory.copy (i32.const 4096) {a}) {stores}
        (memory.copy (i32.const {4096 + len(head) + 16 * len(ways)}) {b})
        (call $ok (i32.const 4096) (i32.const {size}))""",
        texts,
        extra=operations + hexadecimal,
    )
