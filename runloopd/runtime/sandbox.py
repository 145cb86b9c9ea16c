"""The WebAssembly engine: the only module of the house that imports wasmtime.

Loaded by the zygote and by the compile subprocess, never by the daemon. Knows: the engine configuration and
its version, the one interface a component may import, how to compile, load and execute one. Does not know:
frames, processes, who answers a host call, where compiled forms are kept.

Rules measured in lab/wasm.md §E-F, each with its reason there: ``faulthandler`` before the first engine;
configurations are code, never input; a host function returns only ``ok``/``err`` strings and lets no
exception out, not even a ``BaseException``; one store per instance, with limits, dropped after any trap; a
guest never runs on the main thread.
"""

from __future__ import annotations

import _thread
import faulthandler
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import component as wc

from runloopd.runtime.engine import (
    COMPILE_LIMITS,
    COMPONENT_HEADER,
    HOST_INTERFACE,
    WASMTIME_FLOOR,
    ComponentRefused,
    wasmtime_version,
)

__all__ = ["Ending", "Guest", "HostFunction", "check_interface", "compile_component", "make_engine"]

Engine = wasmtime.Engine

HostFunction = Callable[[str, str], tuple[bool, str]]
"""``(op, payload) -> (ok, text)``; must not raise."""

_TRAP = re.compile(r"wasm trap: ([^\n]{1,200})")
_MEMORY = re.compile(
    r"(memory minimum size|exceeds memory limits|memory limit|memory allocation)", re.IGNORECASE
)

_RESULT = "(result (result string (error string)))"
_ECHO = f"""
(component
  (import "runloop:agent/host@0.1.0" (instance $host
    (export "call" (func (param "op" string) (param "payload" string) {_RESULT}))))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 64))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $libc (instantiate $libc))
  (core func $call (canon lower (func $host "call")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $guest
    (import "host" "call" (func $call (param i32 i32 i32 i32 i32)))
    (func (export "handle") (param i32 i32) (result i32)
      (call $call (local.get 0) (local.get 1) (local.get 0) (local.get 1) (i32.const 16))
      (i32.const 16)))
  (core instance $guest (instantiate $guest (with "host" (instance (export "call" (func $call))))))
  (func (export "handle") (param "input" string) {_RESULT}
    (canon lift (core func $guest "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))
"""


def make_engine(*, parallel: bool = False) -> wasmtime.Engine:
    """An engine with the configuration of ``ENGINE_CONFIG`` (bump it when a line here changes).

    ``parallel`` compiles on several threads: only for a process that never forks (lab/wasm.md §E).
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()  # later it would take the engine's signals away: every trap a crash
    found = tuple(int(part) for part in re.findall(r"\d+", wasmtime_version())[:3])
    if found < WASMTIME_FLOOR:
        raise ComponentRefused(
            f"wasmtime {wasmtime_version()} is older than {'.'.join(map(str, WASMTIME_FLOOR))}"
        )
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.cranelift_nan_canonicalization = True
    config.wasm_relaxed_simd_deterministic = True
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_gc = False
    config.wasm_component_model = True
    config.parallel_compilation = parallel
    return wasmtime.Engine(config)


def check_interface(component: wc.Component, engine: wasmtime.Engine) -> str | None:
    """Return the name under which the component imports the host (None: it imports nothing).

    Raises :class:`ComponentRefused` unless ``runloop:agent/host@0.1.x`` with exactly ``call`` is all it
    imports and ``handle`` is exported, both of the types the ABI names.
    """
    kind = component.type
    host: str | None = None
    for name, item in kind.imports(engine).items():
        extern = item.ty
        if not HOST_INTERFACE.match(name) or not isinstance(extern, wc.ComponentInstanceType):
            raise ComponentRefused(
                f"the component imports {name!r}; only runloop:agent/host@0.1.x is allowed"
            )
        if host is not None:
            raise ComponentRefused(f"the component imports two host interfaces: {host!r} and {name!r}")
        functions = {key: value.ty for key, value in extern.exports(engine).items()}
        if set(functions) != {"call"} or not _is_text_function(functions["call"], parameters=2):
            raise ComponentRefused(
                f"the component expects {sorted(functions)} of the host; the interface is"
                " call: func(op: string, payload: string) -> result<string, string>"
            )
        host = name
    handle = kind.exports(engine).get("handle")
    if handle is None or not _is_text_function(handle.ty, parameters=1):
        raise ComponentRefused(
            "the component does not export handle: func(input: string) -> result<string, string>"
        )
    return host


def _is_text_function(extern: object, *, parameters: int) -> bool:
    if not isinstance(extern, wc.FuncType):
        return False
    result = extern.result
    return (
        len(extern.params) == parameters
        and all(isinstance(kind, wc.String) for _, kind in extern.params)
        and isinstance(result, wc.ResultType)
        and isinstance(result.ok, wc.String)
        and isinstance(result.err, wc.String)
    )


def compile_component(engine: wasmtime.Engine, wasm: bytes) -> bytes:
    """Compile a component and return its serialized native form. Expensive: in a process of its own."""
    # Text form would be accepted by wasmtime-py: the header is checked before it sees the bytes.
    if not wasm.startswith(COMPONENT_HEADER):
        raise ComponentRefused("this is not a WebAssembly component in binary form")
    if len(wasm) > COMPILE_LIMITS.wasm_bytes:
        raise ComponentRefused(
            f"the component has {len(wasm)} bytes; the limit is {COMPILE_LIMITS.wasm_bytes}"
        )
    try:
        component = wc.Component(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise ComponentRefused(f"the component is not valid: {first_line(error)}") from error
    check_interface(component, engine)
    return bytes(component.serialize())


def first_line(error: BaseException) -> str:
    """The first line of a foreign message, bounded."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How one execution ended, before the daemon judges the text."""

    code: str
    """``ok``, ``err``, or ``guest.trap|guest.fuel|guest.deadline|guest.memory|guest.output``."""
    text: str
    fuel: int


class LoadedComponent:
    """A component ready to be instantiated, with its interface checked."""

    def __init__(self, engine: wasmtime.Engine, component: wc.Component) -> None:
        self.engine = engine
        self.component = component
        self.host = check_interface(component, engine)
        self.running: dict[int, Guest] = {}
        """Thread -> the guest it runs; how a host call finds whose it is."""
        self.spare: Instance | None = None
        """An instance made before it is needed; the guest that takes it uses it up."""
        # Made here, in the zygote: one less thing that a worker makes in memory of its own.
        self.linker = wc.Linker(engine)
        if self.host is not None:
            with self.linker.root() as root, root.add_instance(self.host) as host:
                host.add_func("call", self._host_call)

    @classmethod
    def map(cls, engine: wasmtime.Engine, path: str) -> LoadedComponent:
        """Map the compiled form at ``path``: a sealed memfd whose MAC the daemon has checked."""
        try:
            component = wc.Component.deserialize_file(engine, path)
        except wasmtime.WasmtimeError as error:
            raise ComponentRefused(
                f"the compiled form does not fit this engine: {first_line(error)}"
            ) from error
        return cls(engine, component)

    @classmethod
    def echo(cls, engine: wasmtime.Engine) -> LoadedComponent:
        """A guest of our own that calls the host once, with its input as name and as arguments, and returns
        what it is told."""
        return cls(engine, wc.Component(engine, _ECHO))

    def make_spare(self, memory_in_use: Callable[[], int] = lambda: 0) -> None:
        """Instantiate now, so that a fork shares the engine's tables and whatever the start wrote.

        Only for components of our own: a foreign one must not run a single instruction in the process that
        workers are forked from. It runs no handler, makes no host call, and knows no agent.
        """
        before = memory_in_use()
        store = wasmtime.Store(self.engine)
        store.set_limits(**_limits(_SPARE_MEMORY))
        store.set_fuel(_SPARE_FUEL)
        store.set_epoch_deadline(_FAR)
        try:
            handle = _handle(self, store)
        except wasmtime.WasmtimeError as error:
            raise ComponentRefused(f"the runner does not start: {first_line(error)}") from error
        self.spare = Instance(
            store=store,
            handle=handle,
            fuel=_SPARE_FUEL - store.get_fuel(),
            memory=memory_in_use() - before,
        )

    def take_spare(self, memory_bytes: int) -> Instance | None:
        """The instance made before, once; not for a guest whose memory must be smaller than it may be."""
        if memory_bytes < _SPARE_MEMORY:
            return None
        spare, self.spare = self.spare, None
        return spare

    def _host_call(self, _context: object, op: str, payload: str) -> wc.Variant:
        # An exception of any kind that left here would unwind through the guest and kill the process.
        try:
            ok, text = self.running[_thread.get_ident()].call(op, payload)
            return wc.Variant("ok" if ok else "err", text)
        except BaseException:
            return wc.Variant("err", '{"code":"internal","message":"the host call failed","retryable":false}')


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """A component instantiated, its handler not yet called."""

    store: wasmtime.Store
    handle: Any
    fuel: int
    """What its instantiation burnt: a guest that takes it pays for it, as if it had done so itself."""
    memory: int
    """Bytes of private writable memory that came with it."""


_SPARE_MEMORY = 64 * 1024 * 1024
"""Bytes a spare's memories may have: what a manifest that names no limit asks for."""
_SPARE_FUEL = 10_000_000_000
_FAR = 1 << 40
"""Epochs ahead: a spare has no deadline until a guest takes it."""


def _limits(memory_bytes: int) -> dict[str, int]:
    """Bounds against storms, not authors: a Python component has 2 memories and some 30 core instances."""
    return {
        "memory_size": memory_bytes,
        "table_elements": 200_000,
        "instances": 200,
        "tables": 100,
        "memories": 10,
    }


def _handle(loaded: LoadedComponent, store: wasmtime.Store) -> Any:
    instance = loaded.linker.instantiate(store, loaded.component)
    handle = instance.get_func(store, "handle")
    assert handle is not None, "check_interface saw it"
    return handle


class Guest:
    """One execution of one component: made, run once, dropped."""

    def __init__(
        self,
        loaded: LoadedComponent,
        *,
        fuel: int,
        memory_bytes: int,
        output_bytes: int,
        call: HostFunction,
        memory_in_use: Callable[[], int],
    ) -> None:
        self._loaded = loaded
        self._fuel = fuel
        self._memory_bytes = memory_bytes
        self._output_bytes = output_bytes
        self.call = call
        self._memory_in_use = memory_in_use
        self._spare = spare = loaded.take_spare(memory_bytes)
        self._store = wasmtime.Store(loaded.engine) if spare is None else spare.store
        self._store.set_limits(**_limits(memory_bytes))
        self._store.set_fuel(fuel if spare is None else max(0, fuel - spare.fuel))
        # The epoch moves once: when the watch in the worker, or nobody, says that time is up.
        self._store.set_epoch_deadline(1)

    def fuel_burnt(self) -> int:
        """Fuel used so far; call it only on the guest's own thread."""
        return self._fuel - self._store.get_fuel()

    def stop(self) -> None:
        """Make the guest trap at its next check. From any thread."""
        self._loaded.engine.increment_epoch()

    def run(self, text: str) -> Ending:
        """Instantiate, call ``handle(text)``, and tell how it ended. Never raises for what a guest does."""
        try:
            answer = self._execute(text)
        except wasmtime.WasmtimeError as error:
            return self._trapped(error)
        except (UnicodeError, ValueError, AssertionError, RecursionError, MemoryError) as error:
            return self._ending("guest.trap", f"the guest broke the interface: {first_line(error)}")
        tag, payload = getattr(answer, "tag", None), getattr(answer, "payload", None)
        if tag not in ("ok", "err") or not isinstance(payload, str):
            return self._ending("guest.output", "handle returned neither ok nor err with a string")
        if len(payload) > self._output_bytes or len(payload.encode()) > self._output_bytes:
            return self._ending("guest.output", f"the result is longer than {self._output_bytes} bytes")
        return self._ending(tag, payload)

    def _execute(self, text: str) -> Any:
        thread = _thread.get_ident()
        self._loaded.running[thread] = self
        try:
            spare = self._spare
            handle = _handle(self._loaded, self._store) if spare is None else spare.handle
            return handle(self._store, text)
        finally:
            del self._loaded.running[thread]

    def _trapped(self, error: wasmtime.WasmtimeError) -> Ending:
        text = str(error)
        found = _TRAP.search(text)
        reason = found.group(1).strip() if found else first_line(error)
        if "all fuel consumed" in reason:
            return self._ending("guest.fuel", f"the guest used all of its {self._fuel} units of fuel")
        if reason == "interrupt":
            return self._ending("guest.deadline", "the guest ran longer than its time")
        if not found and _MEMORY.search(text):
            return self._ending(
                "guest.memory", f"the guest needs more than {self._memory_bytes} bytes of memory"
            )
        in_use = self._memory_in_use() + (0 if self._spare is None else self._spare.memory)
        if "unreachable" in reason and in_use > self._memory_bytes * 3 // 4:
            return self._ending(
                "guest.memory", f"the guest gave up near its limit of {self._memory_bytes} bytes of memory"
            )
        return self._ending("guest.trap", reason)

    def _ending(self, code: str, text: str) -> Ending:
        try:
            fuel = self.fuel_burnt()
        except wasmtime.WasmtimeError:
            fuel = self._fuel
        return Ending(code=code, text=text, fuel=fuel)
