"""Guests written by hand: a component around a few lines of core WebAssembly text, for tests that must be
exact.

``component(body)`` returns the bytes of a component whose ``handle`` has that body. In it: ``$call`` calls
the host with the five canonical arguments, ``(call $ok (i32.const P) (i32.const L))`` and ``$err`` return a
text, ``text("…")`` in :class:`Texts` places one in memory.
"""

from __future__ import annotations

import json
from typing import Any

import wasmtime

HOST = "runloop:agent/host@0.1.0"
RESULT = "(result (result string (error string)))"
EMPTY = '{"ports":{}}'


class Texts:
    """Texts in the guest's memory, from address 1024 on."""

    def __init__(self) -> None:
        self._at = 1024
        self.segments: list[str] = []

    def __call__(self, text: str | bytes) -> str:
        """Place a text; return its ``ptr len`` as two constants."""
        data = text.encode() if isinstance(text, str) else text
        escaped = "".join(f"\\{byte:02x}" for byte in data)
        self.segments.append(f'(data (i32.const {self._at}) "{escaped}")')
        at, self._at = self._at, self._at + len(data)
        return f"(i32.const {at}) (i32.const {len(data)})"


def component(body: str, texts: Texts | None = None, **shape: Any) -> bytes:
    """The binary form of :func:`text_form`."""
    return wat(text_form(body, texts, **shape))


def text_form(
    body: str,
    texts: Texts | None = None,
    *,
    extra: str = "",
    pages: int = 2,
    host: str = HOST,
) -> str:
    """A component whose ``handle`` runs ``body`` (parameters ``$p`` and ``$n``: the input's address and
    length)."""
    data = "\n".join(texts.segments) if texts else ""
    return f"""
(component
  (import "{host}" (instance $host
    (export "call" (func (param "op" string) (param "payload" string) {RESULT}))))
  (core module $libc
    (memory (export "memory") {pages})
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc")
      (param $old i32) (param $was i32) (param $align i32) (param $new i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $next))
      (global.set $next
        (i32.and (i32.add (i32.add (local.get $at) (local.get $new)) (i32.const 7)) (i32.const -8)))
      (block $enough
        (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $new) (i32.const 65536))))))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $call (canon lower (func $host "call")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $m
    (import "libc" "memory" (memory 1))
    (import "host" "call" (func $call (param i32 i32 i32 i32 i32)))
    {data}
    {extra}
    (func $answer (param $tag i32) (param $at i32) (param $len i32) (result i32)
      (i32.store (i32.const 16) (local.get $tag))
      (i32.store (i32.const 20) (local.get $at))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))
    (func $ok (param i32 i32) (result i32) (call $answer (i32.const 0) (local.get 0) (local.get 1)))
    (func $err (param i32 i32) (result i32) (call $answer (i32.const 1) (local.get 0) (local.get 1)))
    (func (export "handle") (param $p i32) (param $n i32) (result i32)
      (local $i i32)
      {body}))
  (core instance $m (instantiate $m
    (with "libc" (instance $libc))
    (with "host" (instance (export "call" (func $call))))))
  (func (export "handle") (param "input" string) {RESULT}
    (canon lift (core func $m "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))
"""


def wat(text: str) -> bytes:
    """Binary form of WebAssembly text."""
    return bytes(wasmtime.wat2wasm(text))


def saying(value: Any) -> bytes:
    """A guest that answers one JSON value."""
    texts = Texts()
    return component(
        f"(call $ok {texts(value if isinstance(value, (str, bytes)) else json.dumps(value))})", texts
    )


def calling(op: str, args: str | bytes, *, times: int = 1) -> bytes:
    """A guest that makes one call ``times`` times and returns the last answer as the value of port ``out``,
    be it ok or err."""
    texts = Texts()
    head, tail = '{"ports":{"out":[', "]}}"
    a, b = texts(head), texts(tail)
    call = f"(call $call {texts(op)} {texts(args)} (i32.const 32))"
    return component(
        f"""
        (local $at i32) (local $len i32)
        (loop $again
          {call}
          (br_if $again (i32.lt_u
            (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {times}))))
        (local.set $len (i32.load (i32.const 40)))
        (local.set $at (i32.mul (memory.size) (i32.const 65536)))
        (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $len) (i32.const 65536)))))
        (memory.copy (local.get $at) {a})
        (memory.copy (i32.add (local.get $at) (i32.const {len(head)}))
                     (i32.load (i32.const 36)) (local.get $len))
        (memory.copy (i32.add (local.get $at) (i32.add (i32.const {len(head)}) (local.get $len))) {b})
        (call $ok (local.get $at) (i32.add (local.get $len) (i32.const {len(head) + len(tail)})))
        """,
        texts,
    )


LOOP = "(loop $for_ever (br $for_ever)) (unreachable)"
