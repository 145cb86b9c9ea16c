"""Turns a core WebAssembly module into a component of the agent world, byte by byte, without any tool.

Knows: how a component of ``sdk/runner/wit/agent.wit`` is laid out (the component model's binary format), and
how to put a module into one. Does not know: which language or compiler the module is from, or whether its
code is valid: the engine judges that at install.

The module must export ``memory``, ``cabi_realloc``, ``handle`` and ``cabi_post_handle``, may export
``_initialize``, and may import the host call and WASI preview 1. Every WASI call answers "not supported", so
that a C library links and the guest still has no world but the host. The same module gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from runloop.errors import UsageError

__all__ = ["HOST", "WrapError", "wrap"]

HOST = "runloop:agent/host@0.1.0"
WASI = "wasi_snapshot_preview1"

_MODULE = b"\0asm\1\0\0\0"
_COMPONENT = b"\0asm\x0d\0\1\0"
_ENOSYS = 52
_MAX_IMPORTS = 1_000
_MAX_EXPORTS = 100_000

_I32 = 0x7F
_FUNCTION, _TABLE, _MEMORY = 0, 1, 2
_KINDS = {0: "function", 1: "table", 2: "memory", 3: "global", 4: "tag"}

# Sections of a component, and what their entries begin with.
_CORE_MODULE, _CORE_INSTANCE, _ALIAS, _TYPE, _CANON, _IMPORT, _EXPORT = 1, 2, 6, 7, 8, 10, 11
_INSTANTIATE, _INLINE = b"\x00", b"\x01"
_STRING = b"\x73"
_ANSWER = b"\x6a\x01\x73\x01\x73"
"""``result<string, string>``."""
_UTF8 = b"\x00"


class WrapError(UsageError):
    """The module does not have the shape of an agent."""

    code: ClassVar[str] = "build.module"


@dataclass(frozen=True, slots=True)
class Signature:
    """Value types of a function, as the bytes of the binary format."""

    given: bytes
    made: bytes


HOST_CALL = Signature(bytes([_I32] * 5), b"")
NEEDED: dict[str, Signature | None] = {
    "memory": None,
    "cabi_realloc": Signature(bytes([_I32] * 4), bytes([_I32])),
    "handle": Signature(bytes([_I32] * 2), bytes([_I32])),
    "cabi_post_handle": Signature(bytes([_I32]), b""),
}
_START = Signature(b"", b"")


def wrap(module: bytes) -> bytes:
    """The component around ``module``; raises :class:`WrapError` for wrong imports or exports."""
    shape = _read(module)
    _check(shape)
    return _component(module, shape)


def _check(shape: _Shape) -> None:
    missing = [name for name in NEEDED if name not in shape.exports]
    if missing:
        raise WrapError(
            f"the module does not export {', '.join(missing)}",
            hint="use the SDK's macro or header, which define the exports of the agent ABI",
        )
    for name, signature in {**NEEDED, "_initialize": _START}.items():
        found = shape.exports.get(name)
        if found is not None and found != (_MEMORY if signature is None else _FUNCTION, signature):
            raise WrapError(
                f"the module exports {name}, but not with the type that the agent ABI gives it",
                hint="use the SDK's macro or header, which define the exports of the agent ABI",
            )
    for owner, name, signature in shape.imports:
        if owner not in (HOST, WASI) or (owner == HOST and (name, signature) != ("call", HOST_CALL)):
            raise WrapError(
                f"the module imports {owner!r} {name!r}; an agent has the host call and nothing else",
                hint="a function that is declared and never defined becomes an import: define it or drop it",
            )


# --- writing --------------------------------------------------------------------------------------


def _number(value: int) -> bytes:
    """Unsigned LEB128, as short as it can be."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _name(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()


def _plain(text: str) -> bytes:
    """A name of the component's own imports and exports."""
    return b"\x00" + _name(text)


def _list(*items: bytes) -> bytes:
    return _number(len(items)) + b"".join(items)


def _section(kind: int, *items: bytes) -> bytes:
    content = _list(*items)
    return bytes([kind]) + _number(len(content)) + content


def _module_section(module: bytes) -> bytes:
    return bytes([_CORE_MODULE]) + _number(len(module)) + module


def _function_type(signature: Signature) -> bytes:
    return (
        b"\x60"
        + _number(len(signature.given))
        + signature.given
        + _number(len(signature.made))
        + signature.made
    )


def _body(code: bytes) -> bytes:
    """A function body without locals."""
    return _number(len(code) + 2) + b"\x00" + code + b"\x0b"


_CALLS_IMPORT = _name("") + _name("calls") + b"\x01\x70\x01\x01\x01"
"""A table of exactly one function."""

_SHIM = b"".join(
    (
        _MODULE,
        _section(1, _function_type(HOST_CALL)),
        _section(3, _number(0)),
        _section(4, b"\x70\x01\x01\x01"),
        _section(7, _name("calls") + b"\x01\x00", _name("call") + b"\x00\x00"),
        # local.get 0..4, i32.const 0, call_indirect type 0 of table 0
        _section(10, _body(b"\x20\x00\x20\x01\x20\x02\x20\x03\x20\x04\x41\x00\x11\x00\x00")),
    )
)
"""The host call before it exists: lowering it needs the module's memory, and the module needs it to start."""


def _tie(starts: bool) -> bytes:
    """The module that puts the lowered host call into the shim's table, then starts the main module."""
    types = [_function_type(HOST_CALL)] + [_function_type(_START)] * starts
    imports = [_CALLS_IMPORT, _name("") + _name("call") + b"\x00\x00"]
    imports += [_name("") + _name("start") + b"\x00\x01"] * starts
    start = b"\x08\x01\x01" if starts else b""
    return b"".join(
        (
            _MODULE,
            _section(1, *types),
            _section(2, *imports),
            start,
            _section(9, b"\x00\x41\x00\x0b\x01\x00"),  # element 0 of table 0 is function 0
        )
    )


def _stubs(wasi: list[tuple[str, Signature]]) -> bytes:
    """WASI for a library that insists: every call fails, and what cannot fail traps."""
    kinds = list(dict.fromkeys(signature for _, signature in wasi))
    return b"".join(
        (
            _MODULE,
            _section(1, *map(_function_type, kinds)),
            _section(3, *(_number(kinds.index(signature)) for _, signature in wasi)),
            _section(7, *(_name(name) + b"\x00" + _number(at) for at, (name, _) in enumerate(wasi))),
            _section(
                10,
                *(
                    _body(b"\x41" + _number(_ENOSYS) if signature.made == bytes([_I32]) else b"\x00")
                    for _, signature in wasi
                ),
            ),
        )
    )


def _core_alias(kind: int, instance: int, name: str) -> bytes:
    """Names a core export: it gets the next index of its kind."""
    return b"\x00" + bytes([kind]) + b"\x01" + _number(instance) + _name(name)


def _instantiate(module: int, given: Mapping[str, int] | None = None) -> bytes:
    """An instance of a module that is given other instances as its imports."""
    names = (given or {}).items()
    return (
        _INSTANTIATE + _number(module) + _list(*(_name(name) + b"\x12" + _number(at) for name, at in names))
    )


def _inline(exports: Mapping[str, tuple[int, int]]) -> bytes:
    """An instance made of things that exist: name -> kind and index."""
    return _INLINE + _list(
        *(_name(name) + bytes([kind]) + _number(at) for name, (kind, at) in exports.items())
    )


def _component(module: bytes, shape: _Shape) -> bytes:
    """Everything in order; an index counts what came before it in its own kind."""
    wasi = [(name, signature) for owner, name, signature in shape.imports if owner == WASI]
    starts = "_initialize" in shape.exports
    extra = 1 if wasi else 0  # the stubs are one more module and one more instance
    shim, main = 0, 2 + extra  # core instances
    host_call, realloc, lowered, start = 0, 1, 2, 3  # core functions, in the order they are named below
    gate_type = b"".join(
        (
            b"\x42",  # an instance type of three declarations
            _list(
                b"\x01" + _ANSWER,
                b"\x01\x40" + _list(_name("op") + _STRING, _name("payload") + _STRING) + b"\x00\x00",
                b"\x04" + _plain("call") + b"\x01\x01",
            ),
        )
    )
    handle_type = b"\x40" + _list(_name("input") + _STRING) + b"\x00\x01"
    first = 4 if starts else 3
    handle, post = first, first + 1
    tie_inputs = {"calls": (_TABLE, 0), "call": (_FUNCTION, lowered)}
    tie_aliases = [_core_alias(_TABLE, shim, "calls")]
    if starts:
        tie_inputs["start"] = (_FUNCTION, start)
        tie_aliases.append(_core_alias(_FUNCTION, main, "_initialize"))
    return b"".join(
        (
            _COMPONENT,
            _section(_TYPE, gate_type),
            _section(_IMPORT, _plain(HOST) + b"\x05\x00"),
            _module_section(module),
            _module_section(_SHIM),
            _section(_CORE_INSTANCE, _instantiate(1)),
            *((_module_section(_stubs(wasi)), _section(_CORE_INSTANCE, _instantiate(2))) if wasi else ()),
            _section(_ALIAS, _core_alias(_FUNCTION, shim, "call")),
            _section(
                _CORE_INSTANCE,
                _inline({"call": (_FUNCTION, host_call)}),
                _instantiate(0, {HOST: 1 + extra, **({WASI: 1} if wasi else {})}),
            ),
            _section(
                _ALIAS,
                _core_alias(_MEMORY, main, "memory"),
                _core_alias(_FUNCTION, main, "cabi_realloc"),
                b"\x01\x00\x00" + _name("call"),  # of the imported instance: function 0
            ),
            _section(_CANON, b"\x01\x00\x00" + _list(*_options(realloc))),
            _module_section(_tie(starts)),
            _section(_ALIAS, *tie_aliases),
            _section(_CORE_INSTANCE, _inline(tie_inputs), _instantiate(2 + extra, {"": main + 1})),
            _section(_TYPE, _ANSWER, handle_type),
            _section(
                _ALIAS,
                _core_alias(_FUNCTION, main, "handle"),
                _core_alias(_FUNCTION, main, "cabi_post_handle"),
            ),
            _section(
                _CANON,
                b"\x00\x00" + _number(handle) + _list(*_options(realloc), b"\x05" + _number(post)) + b"\x02",
            ),
            _section(_EXPORT, _plain("handle") + b"\x01\x01\x00"),
        )
    )


def _options(realloc: int) -> tuple[bytes, ...]:
    """How strings cross: in memory 0, made by ``realloc``, in UTF-8."""
    return b"\x03\x00", b"\x04" + _number(realloc), _UTF8


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    imports: list[tuple[str, str, Signature]]
    exports: dict[str, tuple[int, Signature | None]]
    """Name -> kind and, for a function, its type."""


class _Reader:
    """A cursor over part of a module; raises :class:`WrapError` where the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def done(self) -> bool:
        return self.at >= len(self.data)

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise WrapError("the module ends too early", hint="build it again")
        taken, self.at = self.data[self.at : end], end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """An unsigned 32-bit LEB128."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise WrapError("the module holds a number of more than 32 bits where a size belongs")

    def sized(self) -> bytes:
        return self.take(self.number())

    def name(self) -> str:
        try:
            return self.sized().decode()
        except UnicodeDecodeError as error:
            raise WrapError("the module holds a name that is not UTF-8") from error

    def count(self, most: int, what: str) -> int:
        count = self.number()
        if count > most:
            raise WrapError(f"the module has {count} {what}; at most {most} are accepted")
        return count


def _read(module: bytes) -> _Shape:
    if not module.startswith(_MODULE):
        raise WrapError("not a core WebAssembly module", hint="give the .wasm file that the compiler wrote")
    reader = _Reader(module[len(_MODULE) :])
    types: list[Signature] = []
    imports: list[tuple[str, str, Signature]] = []
    functions: list[Signature] = []
    exports: dict[str, tuple[int, Signature | None]] = {}
    while not reader.done:
        section, part = reader.byte(), _Reader(reader.sized())
        if section == 1:
            types = _types(part)
        elif section == 2:
            imports = [_import(part, types) for _ in range(part.count(_MAX_IMPORTS, "imports"))]
            functions += [signature for _, _, signature in imports]
        elif section == 3:
            functions += [_pick(types, part.number()) for _ in range(part.count(_MAX_EXPORTS, "functions"))]
        elif section == 7:
            for _ in range(part.count(_MAX_EXPORTS, "exports")):
                name, kind, index = part.name(), part.byte(), part.number()
                exports[name] = kind, _pick(functions, index) if kind == _FUNCTION else None
    return _Shape(imports, exports)


def _types(part: _Reader) -> list[Signature]:
    types = []
    for _ in range(part.count(_MAX_EXPORTS, "types")):
        if part.byte() != 0x60:
            raise WrapError("the module has types beyond functions", hint="build it for plain wasm32")
        types.append(Signature(part.sized(), part.sized()))
    return types


def _import(part: _Reader, types: list[Signature]) -> tuple[str, str, Signature]:
    owner, name, kind = part.name(), part.name(), part.byte()
    if kind != _FUNCTION:
        raise WrapError(
            f"the module imports the {_KINDS.get(kind, 'thing')} {owner!r} {name!r}; an agent has the host"
            " call and nothing else",
            hint="build it with a memory and tables of its own",
        )
    return owner, name, _pick(types, part.number())


def _pick(items: list[Signature], index: int) -> Signature:
    if index >= len(items):
        raise WrapError("the module refers to a type or function that it does not have")
    return items[index]
