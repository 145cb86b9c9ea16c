"""From a core module to a component of the agent world, and nothing that is none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime import component as wc

C = Path(__file__).parents[3] / "sdk" / "c"

HEAD = """
(import "runloop:agent/host@0.1.0" "call" (func $call (param i32 i32 i32 i32 i32)))
"""
BODY = """
(memory (export "memory") 1)
(global $top (mut i32) (i32.const 1024))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    global.get $top
    (global.set $top
        (i32.and (i32.add (i32.add (global.get $top) (local.get 3)) (i32.const 7)) (i32.const -8))))
(data (i32.const 64) "time.now{}")
(func (export "cabi_post_handle") (param i32))
"""
ASKS = """
(func (export "handle") (param i32 i32) (result i32)
    (call $call (i32.const 64) (i32.const 8) (i32.const 72) (i32.const 2) (i32.const 16)) (i32.const 16))
"""
SILENT = '(func (export "handle") (param i32 i32) (result i32) i32.const 0)'


@pytest.fixture(scope="module")
def tools() -> Iterator[Any]:
    sys.path.insert(0, str(C))
    try:
        import wrap

        yield wrap
    finally:
        sys.path.remove(str(C))


@pytest.fixture
def make(tools: Any) -> Callable[[str], bytes]:
    return lambda text: bytes(tools.wrap(bytes(wasmtime.wat2wasm(f"(module {text})"))))


def run(component: bytes) -> tuple[Any, list[tuple[str, str]]]:
    engine = wasmtime.Engine()
    asked: list[tuple[str, str]] = []

    def call(_store: Any, op: str, payload: str) -> Any:
        asked.append((op, payload))
        return wc.Variant("ok", '{"now_ms":7}')

    linker = wc.Linker(engine)
    with linker.root() as root, root.add_instance("runloop:agent/host@0.1.0") as gate:
        gate.add_func("call", call)
    store = wasmtime.Store(engine)
    answers: list[Any] = []

    def off_the_main_thread() -> None:
        handle = linker.instantiate(store, wc.Component(engine, component)).get_func(store, "handle")
        assert handle is not None
        answers.append(handle(store, "{}"))

    thread = threading.Thread(target=off_the_main_thread)
    thread.start()
    thread.join(30)
    return answers[0], asked


def test_a_wrapped_module_is_called_and_calls_the_host(make: Callable[[str], bytes]) -> None:
    answer, asked = run(make(HEAD + BODY + ASKS))
    assert (answer.tag, answer.payload) == ("ok", '{"now_ms":7}')
    assert asked == [("time.now", "{}")]


def test_a_constructor_runs_before_the_first_task(make: Callable[[str], bytes]) -> None:
    start = '(func (export "_initialize") (i32.store8 (i32.const 64) (i32.const 84)))'  # t -> T
    _, asked = run(make(HEAD + BODY + ASKS + start))
    assert asked == [("Time.now", "{}")]


def test_every_call_of_a_c_library_into_wasi_is_not_supported(make: Callable[[str], bytes]) -> None:
    wasi = '(import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))'
    exits = '(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))'
    asks = """(func (export "handle") (param i32 i32) (result i32)
        (i32.store8 (i32.const 64) (call $w (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
        (call $call (i32.const 64) (i32.const 8) (i32.const 72) (i32.const 2) (i32.const 16))
        (i32.const 16))"""
    _, asked = run(make(HEAD + wasi + exits + BODY + asks))
    assert asked[0][0][0] == chr(52)


def test_a_wrapped_module_imports_the_host_and_nothing_else(make: Callable[[str], bytes]) -> None:
    engine = wasmtime.Engine()
    component = wc.Component(engine, make(HEAD + BODY + ASKS))
    with pytest.raises(wasmtime.WasmtimeError, match="runloop:agent/host"):
        wc.Linker(engine).instantiate(wasmtime.Store(engine), component)
    assert run(make(HEAD + BODY + ASKS))[1]  # with the host alone it starts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BODY, "does not export handle"),
        ("", "does not export memory"),
        ('(import "env" "abort" (func))' + BODY + SILENT, "imports env abort"),
        ('(import "runloop:agent/host@0.1.0" "other" (func))' + BODY, "export handle"),
        (
            '(import "runloop:agent/host@0.1.0" "call" (func $call (param i32)))' + BODY + SILENT,
            "nothing else",
        ),
        ('(import "env" "memory" (memory 1))', "imports the memory env memory"),
    ],
)
def test_a_module_that_is_no_agent_is_refused_with_the_reason(
    tools: Any, make: Callable[[str], bytes], text: str, why: str
) -> None:
    with pytest.raises(tools.WrapError, match=why):
        make(text)


@pytest.mark.parametrize(
    "data",
    [b"", b"(module)", b"\0asm\x0d\0\1\0", b"\0asm\1\0\0\0\2\x80", b"\0asm\1\0\0\0\1\3\1\x5f\0"],
)
def test_bytes_that_are_no_module_are_refused(tools: Any, data: bytes) -> None:
    with pytest.raises(tools.WrapError):
        tools.wrap(data)
