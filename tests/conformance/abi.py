"""Plays the vectors of ``sdk/conformance/abi.json`` against anything that serves the agent ABI.

``serve(input, transport)`` answers ``(ok, text)``, and asks ``transport(op, payload)`` for host calls.
:class:`Component` makes one of a component; any other harness (a process, an interpreter) makes its own.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import component as wc

__all__ = ["CASES", "DEFAULTS", "Component", "Serve", "Transport", "faults", "play_all"]

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "sdk/conformance/abi.json").read_text())
CASES: list[dict[str, Any]] = VECTORS["cases"]
DEFAULTS: dict[str, dict[str, Any]] = VECTORS["defaults"]

Transport = Callable[[str, str], tuple[bool, str]]
Serve = Callable[[str, Transport], tuple[bool, str]]


def play_all(serve: Serve, *, lacks: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """Name of each vector that does not hold -> why. ``lacks``: the ``needs`` that a language cannot meet."""
    wrong = {}
    for case in CASES:
        if not lacks & set(case.get("needs", ())) and (found := faults(case, serve)):
            wrong[case["name"]] = found
    return wrong


def faults(case: dict[str, Any], serve: Serve) -> list[str]:
    """What is wrong with how one vector is served; empty when it holds."""
    script = Script(case.get("host", []))
    try:
        ok, text = serve(case["input"], script)
    except Exception as error:
        return [*script.faults, f"the guest died: {str(error)[:500]}"]
    found = list(script.faults)
    if script.left:
        found.append(f"{len(script.left)} host calls were not made")
    try:
        value = json.loads(text)
    except ValueError:
        return [*found, f"the answer is not JSON: {text[:200]!r}"]
    if (reason := judged(case, ok, value)) is not None:
        found.append(f"{reason}: {text[:300]}")
    return found


def judged(case: dict[str, Any], ok: bool, value: Any) -> str | None:
    if (error := case.get("error")) is not None:
        if ok:
            return "served what should fail"
        shapes = {"code": str, "message": str, "retryable": bool}
        if not isinstance(value, dict) or any(type(value.get(k)) is not t for k, t in shapes.items()):
            return "a failure of another shape"
        if error["codes"] and value["code"] not in error["codes"]:
            return f"failed with another code than {error['codes']}"
        differs = [key for key in ("message", "retryable") if key in error and error[key] != value[key]]
        return f"another {differs[0]} than {error[differs[0]]!r}" if differs else None
    if not ok:
        return "failed"
    if "output" in case:
        return None if same(case["output"], value) else f"expected {json.dumps(case['output'])[:300]}, got"
    return None if includes(value, case["includes"]) else "lacks what it must include"


def same(left: Any, right: Any) -> bool:
    """Equal as JSON values: 1 is 1.0, and neither is true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right if isinstance(left, str) else left == right


def includes(whole: Any, part: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and includes(whole[key], item) for key, item in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(includes, whole, part))
    return same(whole, part)


class Script:
    """The host of one vector: answers its exchanges in order and notes whatever differs."""

    def __init__(self, exchanges: list[dict[str, Any]]) -> None:
        self.left = list(exchanges)
        self.faults: list[str] = []

    def __call__(self, op: str, payload: str) -> tuple[bool, str]:
        if not self.left:
            self.faults.append(f"one host call too many: {op} {payload[:200]}")
            return False, "{}"
        exchange = self.left.pop(0)
        args = json.loads(payload)
        if op != exchange["op"] or not same(plain(op, args), plain(op, exchange["args"])):
            self.faults.append(f"expected {exchange['op']} {exchange['args']}, got {op} {args}")
        if "answer_text" in exchange:
            return True, exchange["answer_text"]
        if "refusal_text" in exchange:
            return False, exchange["refusal_text"]
        if "refusal" in exchange:
            return False, json.dumps(exchange["refusal"])
        return True, json.dumps(exchange["answer"])


def plain(op: str, args: dict[str, Any]) -> dict[str, Any]:
    """Arguments without those that say what would hold anyway."""
    usual = DEFAULTS.get(op, {})
    return {
        key: value
        for key, value in args.items()
        if value is not None and not (key in usual and same(usual[key], value))
    }


class Component:
    """One instance of a component in a bare wasmtime, off the main thread; serves task after task."""

    def __init__(self, wasm: bytes, memory: int = -1) -> None:
        engine = wasmtime.Engine()
        linker = wc.Linker(engine)
        with linker.root() as root, root.add_instance("runloop:agent/host@0.1.0") as gate:
            gate.add_func("call", self._host_call)
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=memory)
        instance = linker.instantiate(self._store, wc.Component(engine, wasm))
        handle = instance.get_func(self._store, "handle")
        assert handle is not None
        self._handle = handle
        self._transport: Transport = lambda _op, _payload: (False, "{}")
        self._error: BaseException | None = None
        self._asked: queue.Queue[str | None] = queue.Queue()
        self._answered: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    @classmethod
    @contextmanager
    def of(cls, wasm: bytes, *, memory: int = -1) -> Iterator[Component]:
        """``memory``: bytes that its linear memory may have; -1 is no bound."""
        made = cls(wasm, memory)
        yield made
        made._asked.put(None)

    def __call__(self, text: str, transport: Transport) -> tuple[bool, str]:
        """Serve one input; raises what the engine raised for a trap."""
        self._transport = transport
        self._asked.put(text)
        answer = self._answered.get(timeout=60)
        if self._error is not None:
            raise self._error
        if isinstance(answer, Exception):
            raise answer
        return answer.tag == "ok", answer.payload

    def _work(self) -> None:
        while (text := self._asked.get()) is not None:
            try:
                answer: Any = self._handle(self._store, text)
                self._handle.post_return(self._store)
            except Exception as error:
                answer = error
            self._answered.put(answer)

    def _host_call(self, _store: Any, op: str, payload: str) -> wc.Variant:
        try:
            ok, text = self._transport(op, payload)
        except BaseException as error:  # an exception out of a host call would kill this process
            self._error = error
            ok, text = False, "{}"
        return wc.Variant("ok" if ok else "err", text)
