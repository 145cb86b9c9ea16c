"""Turns a core WebAssembly module into a component of the agent world; needs only wasmtime's assembler.

Knows: how a component of ``sdk/runner/wit/agent.wit`` is laid out, and how to splice a module into one. Does
not know: where the module is from. It must export ``memory``, ``cabi_realloc``, ``handle`` and
``cabi_post_handle``, may export ``_initialize``, and may import the host call and WASI preview 1; every WASI
call answers "not supported", so that a C library links and the guest still has no world but the host.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from wasmtime import wat2wasm

__all__ = ["WrapError", "wrap"]

HOST = "runloop:agent/host@0.1.0"
WASI = "wasi_snapshot_preview1"
NEEDED = ("memory", "cabi_realloc", "handle", "cabi_post_handle")
_ENOSYS = 52
_MODULE = b"\0asm\1\0\0\0"
_COMPONENT = b"\0asm\x0d\0\1\0"
_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}
_KINDS = {0: "func", 1: "table", 2: "memory", 3: "global"}
_HOST_CALL = (("i32", "i32", "i32", "i32", "i32"), ())


class WrapError(ValueError):
    """The module does not have the shape of an agent."""


Signature = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class _Shape:
    imports: list[tuple[str, str, Signature]]
    exports: dict[str, str]


def wrap(module: bytes) -> bytes:
    """The component around ``module``; raises :class:`WrapError` for wrong imports or exports."""
    if not module.startswith(_MODULE):
        raise WrapError("not a core WebAssembly module")
    shape = _shape(module)
    missing = [name for name in NEEDED if name not in shape.exports]
    if missing:
        raise WrapError(f"the module does not export {', '.join(missing)}")
    for owner, name, signature in shape.imports:
        if owner not in (HOST, WASI) or (owner == HOST and (name, signature) != ("call", _HOST_CALL)):
            raise WrapError(f"the module imports {owner} {name}; an agent has the host call and nothing else")
    component = bytes(wat2wasm(_text(shape)))
    return _splice(component, module)


# --- the wrapper ----------------------------------------------------------------------------------


def _text(shape: _Shape) -> str:
    """The component's text, with a stand-in of the same imports and exports where the module will be."""
    wasi = [(name, signature) for owner, name, signature in shape.imports if owner == WASI]
    starts = "_initialize" in shape.exports
    stubs = f"""
    (core module $stubs {" ".join(_stub(name, signature) for name, signature in wasi)})
    (core instance $stubs (instantiate $stubs))"""
    return f"""(component
    (type $gate (instance
        (type $answer (result string (error string)))
        (export "call" (func (param "op" string) (param "payload" string) (result $answer)))))
    (import "{HOST}" (instance $gate (type $gate)))
    {_stand_in(shape)}
    (core module $shim
        (type $call (func {_signature(_HOST_CALL)}))
        (table (export "calls") 1 1 funcref)
        (func (export "call") (type $call)
            (call_indirect (type $call) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                (i32.const 0))))
    (core instance $shim (instantiate $shim)){stubs if wasi else ""}
    (core instance $main (instantiate $main
        (with "{HOST}" (instance (export "call" (func $shim "call"))))
        {f'(with "{WASI}" (instance $stubs))' if wasi else ""}))
    (alias core export $main "memory" (core memory $memory))
    (alias core export $main "cabi_realloc" (core func $realloc))
    (alias export $gate "call" (func $call))
    (core func $lowered (canon lower (func $call) (memory $memory) (realloc $realloc) string-encoding=utf8))
    (core module $tie
        (import "" "calls" (table 1 1 funcref))
        (import "" "call" (func $call {_signature(_HOST_CALL)}))
        {'(import "" "start" (func $start))' if starts else ""}
        (elem (i32.const 0) func $call)
        {"(start $start)" if starts else ""})
    (core instance (instantiate $tie (with "" (instance
        (export "calls" (table $shim "calls"))
        (export "call" (func $lowered))
        {'(export "start" (func $main "_initialize"))' if starts else ""}))))
    (type $answer (result string (error string)))
    (func (export "handle") (param "input" string) (result $answer)
        (canon lift (core func $main "handle") (memory $memory) (realloc $realloc) string-encoding=utf8
            (post-return (core func $main "cabi_post_handle")))))"""


def _signature(signature: Signature) -> str:
    given, made = signature
    return (f"(param {' '.join(given)}) " if given else "") + (f"(result {' '.join(made)})" if made else "")


def _stand_in(shape: _Shape) -> str:
    imports = " ".join(
        f'(import "{owner}" "{name}" (func {_signature(signature)}))'
        for owner, name, signature in shape.imports
    )
    start = '(func (export "_initialize"))' if "_initialize" in shape.exports else ""
    return f"""(core module $main {imports}
        (memory (export "memory") 0)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "handle") (param i32 i32) (result i32) unreachable)
        (func (export "cabi_post_handle") (param i32)) {start})"""


def _stub(name: str, signature: Signature) -> str:
    body = f"(i32.const {_ENOSYS})" if signature[1] == ("i32",) else "unreachable"
    return f'(func (export "{name}") {_signature(signature)} {body})'


def _splice(component: bytes, module: bytes) -> bytes:
    """Put ``module`` in the place of the first core module section: the stand-in."""
    if not component.startswith(_COMPONENT):
        raise WrapError("wasmtime made no component")
    at = len(_COMPONENT)
    while at < len(component):
        section, _, end = _section(component, at)
        if section == 1:
            return component[:at] + b"\1" + _leb(len(module)) + module + component[end:]
        at = end
    raise WrapError("the wrapper holds no module")


# --- reading a module -----------------------------------------------------------------------------


class _Bytes:
    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> str:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def types(self) -> tuple[str, ...]:
        return tuple(_TYPES[self.byte()] for _ in range(self.number()))


def _shape(module: bytes) -> _Shape:
    types: list[Signature] = []
    imports: list[tuple[str, str, Signature]] = []
    exports: dict[str, str] = {}
    at = len(_MODULE)
    try:
        while at < len(module):
            section, start, at = _section(module, at)
            read = _Bytes(module, start, at)
            if section == 1:
                for _ in range(read.number()):
                    if read.byte() != 0x60:
                        raise WrapError("the module has types beyond functions; build it for plain wasm32")
                    types.append((read.types(), read.types()))
            elif section == 2:
                for _ in range(read.number()):
                    owner, name, kind = read.name(), read.name(), read.byte()
                    if kind != 0:
                        raise WrapError(f"the module imports the {_KINDS.get(kind, 'thing')} {owner} {name}")
                    imports.append((owner, name, types[read.number()]))
            elif section == 7:
                for _ in range(read.number()):
                    name, kind = read.name(), read.byte()
                    read.number()
                    exports[name] = _KINDS.get(kind, "thing")
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise WrapError("the module is damaged") from error
    return _Shape(imports, exports)


def _section(data: bytes, at: int) -> tuple[int, int, int]:
    read = _Bytes(data, at, len(data))
    section, size = read.byte(), read.number()
    return section, read.at, read.at + size


def _leb(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_bytes(wrap(source.read_bytes()))
