"""Core module to component: the encoder against wasmtime's own assembler, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wc

from runloop.authoring.wrap import HOST, WASI, WrapError, wrap

CALL = f'(import "{HOST}" "call" (func (param i32 i32 i32 i32 i32)))'
WASI_TEXTS = {
    "none": "",
    "two": f'(import "{WASI}" "fd_write" (func (param i32 i32 i32 i32) (result i32)))'
    f'(import "{WASI}" "proc_exit" (func (param i32)))',
    "same type": f'(import "{WASI}" "fd_close" (func (param i32) (result i32)))'
    f'(import "{WASI}" "fd_sync" (func (param i32) (result i32)))',
    "wide": f'(import "{WASI}" "clock_time_get" (func (param i32 i64 i32) (result i32)))'
    f'(import "{WASI}" "odd" (func (param f64) (result i64)))',
}
STUB_TEXTS = {
    "none": "",
    "two": '(func (export "fd_write") (param i32 i32 i32 i32) (result i32) (i32.const 52))'
    '(func (export "proc_exit") (param i32) unreachable)',
    "same type": '(func (export "fd_close") (param i32) (result i32) (i32.const 52))'
    '(func (export "fd_sync") (param i32) (result i32) (i32.const 52))',
    "wide": '(func (export "clock_time_get") (param i32 i64 i32) (result i32) (i32.const 52))'
    '(func (export "odd") (param f64) (result i64) unreachable)',
}


def module_text(*, imports: str = CALL, exports: str = "", drop: str = "") -> str:
    parts = {
        "memory": '(memory (export "memory") 1)',
        "cabi_realloc": '(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 9)',
        "handle": '(func (export "handle") (param i32 i32) (result i32) unreachable)',
        "cabi_post_handle": '(func (export "cabi_post_handle") (param i32))',
    }
    body = "".join(text for name, text in parts.items() if name != drop)
    return f"(module {imports} {body} {exports})"


def module(**parts: str) -> bytes:
    return bytes(wasmtime.wat2wasm(module_text(**parts)))


def component_text(main: str, stubs: str, starts: bool) -> str:
    """The wrapper as one would write it by hand: what the encoder must come to."""
    answer = "(type $answer (result string (error string)))"
    return f"""(component
    (type $gate (instance
        {answer}
        (export "call" (func (param "op" string) (param "payload" string) (result $answer)))))
    (import "{HOST}" (instance $gate (type $gate)))
    {main.replace("(module", "(core module $main", 1)}
    (core module $shim
        (type $call (func (param i32 i32 i32 i32 i32)))
        (table (export "calls") 1 1 funcref)
        (func (export "call") (type $call)
            (call_indirect (type $call) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)
                (i32.const 0))))
    (core instance $shim (instantiate $shim))
    {f"(core module $stubs {stubs}) (core instance $stubs (instantiate $stubs))" if stubs else ""}
    (core instance $main (instantiate $main
        (with "{HOST}" (instance (export "call" (func $shim "call"))))
        {f'(with "{WASI}" (instance $stubs))' if stubs else ""}))
    (alias core export $main "memory" (core memory $memory))
    (alias core export $main "cabi_realloc" (core func $realloc))
    (alias export $gate "call" (func $call))
    (core func $lowered (canon lower (func $call) (memory $memory) (realloc $realloc) string-encoding=utf8))
    (core module $tie
        (import "" "calls" (table 1 1 funcref))
        (import "" "call" (func $call (param i32 i32 i32 i32 i32)))
        {'(import "" "start" (func $start))' if starts else ""}
        (elem (i32.const 0) func $call)
        {"(start $start)" if starts else ""})
    (core instance (instantiate $tie (with "" (instance
        (export "calls" (table $shim "calls"))
        (export "call" (func $lowered))
        {'(export "start" (func $main "_initialize"))' if starts else ""}))))
    {answer}
    (func (export "handle") (param "input" string) (result $answer)
        (canon lift (core func $main "handle") (memory $memory) (realloc $realloc) string-encoding=utf8
            (post-return (core func $main "cabi_post_handle")))))"""


def sections(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 8
    while at < len(data):
        kind, size, shift = data[at], 0, 0
        at += 1
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield kind, data[at : at + size]
        at += size


def anonymous(data: bytes, *, component: bool) -> list[object]:
    """The sections without the names that the assembler keeps for debuggers."""
    return [
        (kind, anonymous(content, component=False)) if component and kind == 1 else (kind, content)
        for kind, content in sections(data)
        if kind != 0
    ]


@pytest.mark.parametrize("starts", [False, True], ids=["at rest", "with a start"])
@pytest.mark.parametrize("wasi", WASI_TEXTS)
@pytest.mark.parametrize("call", [CALL, ""], ids=["calls the host", "calls nobody"])
def test_the_encoder_writes_what_the_assembler_writes(call: str, wasi: str, starts: bool) -> None:
    start = '(func (export "_initialize"))' if starts else ""
    text = module_text(imports=call + WASI_TEXTS[wasi], exports=start)
    wanted = bytes(wasmtime.wat2wasm(component_text(text, STUB_TEXTS[wasi], starts)))
    made = wrap(bytes(wasmtime.wat2wasm(text)))
    assert anonymous(made, component=True) == anonymous(wanted, component=True)
    wc.Component(wasmtime.Engine(), made)


def test_the_module_stands_in_the_component_as_it_was() -> None:
    plain = module()
    assert plain in wrap(plain)
    assert wrap(plain) == wrap(plain)


def test_a_large_module_gets_a_length_of_many_bytes() -> None:
    big = module(exports='(data (i32.const 0) "' + "x" * 60_000 + '")')
    wc.Component(wasmtime.Engine(), wrap(big))


@pytest.mark.parametrize("name", ["memory", "cabi_realloc", "handle", "cabi_post_handle"])
def test_a_missing_export_is_named(name: str) -> None:
    with pytest.raises(WrapError, match=f"does not export {name}"):
        wrap(module(drop=name))


@pytest.mark.parametrize(
    ("drop", "instead"),
    [
        ("handle", '(func (export "handle") (param i32) (result i32) unreachable)'),
        ("handle", '(global (export "handle") i32 (i32.const 0))'),
        ("memory", '(func (export "memory"))'),
        ("", '(func (export "_initialize") (result i32) (i32.const 0))'),
    ],
)
def test_an_export_of_another_type_is_named(drop: str, instead: str) -> None:
    with pytest.raises(WrapError, match="not with the type"):
        wrap(module(drop=drop, exports=instead))


@pytest.mark.parametrize(
    "foreign",
    [
        '(import "env" "puts" (func (param i32) (result i32)))',
        f'(import "{HOST}" "call" (func (param i32)))',
        f'(import "{HOST}" "other" (func (param i32 i32 i32 i32 i32)))',
        '(import "runloop:agent/host@0.2.0" "call" (func (param i32 i32 i32 i32 i32)))',
        '(import "env" "table" (table 1 funcref))',
        '(import "env" "count" (global i32))',
    ],
)
def test_a_foreign_import_is_refused(foreign: str) -> None:
    with pytest.raises(WrapError, match="imports"):
        wrap(module(imports=foreign))


@pytest.mark.parametrize("start", [b"", b"\0asm", b"\0asm\x0d\0\1\0", b"(module)", b"MZ"])
def test_what_is_no_core_module_is_refused(start: bytes) -> None:
    with pytest.raises(WrapError, match="not a core WebAssembly module"):
        wrap(start)


@given(st.data())
def test_a_damaged_module_is_refused_or_wrapped_but_never_a_crash(data: st.DataObject) -> None:
    whole = bytearray(module())
    cut = data.draw(st.integers(8, len(whole)))
    del whole[cut:]
    for _ in range(data.draw(st.integers(0, 4))):
        if len(whole) > 8:
            whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = wrap(bytes(whole))
    except WrapError as error:
        assert error.code == "build.module"
    else:
        assert bytes(whole) in made


def test_counts_and_numbers_of_another_world_are_refused_before_they_cost_anything() -> None:
    head = b"\0asm\1\0\0\0"
    with pytest.raises(WrapError, match="at most"):
        wrap(head + b"\x02\x05\xff\xff\xff\xff\x0f")
    with pytest.raises(WrapError, match="more than 32 bits"):
        wrap(head + b"\x02\x06\xff\xff\xff\xff\xff\x01")
    with pytest.raises(WrapError, match="ends too early"):
        wrap(head + b"\x02\x7f")
