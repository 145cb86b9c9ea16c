"""The reference: wasmtime's Python API used plainly, no limits, no sandbox, no daemon.

Run as a file, so that nothing of the house is imported: ``plain.py compile WASM COMPILED`` prints seconds,
``plain.py once COMPILED START`` prints the monotonic clock at the first host call, ``plain.py serve COMPILED
START`` starts the component anew for every line it reads (a number of host calls) and prints a JSON object:
``first`` and ``whole`` in seconds, ``moments`` of all host calls. START is a JSON file ``{source, input}``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import component as wc


class Plain:
    """A component mapped once, started as often as one likes."""

    def __init__(self, compiled: str, start: str) -> None:
        self._start = json.loads(Path(start).read_text())
        self._engine = wasmtime.Engine()
        self._component = wc.Component.deserialize_file(self._engine, compiled)
        self._linker = wc.Linker(self._engine)
        (host,) = self._component.type.imports(self._engine)
        with self._linker.root() as root, root.add_instance(host) as functions:
            functions.add_func("call", self._call)
        self.moments: list[float] = []

    def _call(self, _context: object, op: str, _payload: str) -> Any:
        if op == "agent.source":
            return wc.Variant("ok", self._start["source"])
        self.moments.append(time.perf_counter())
        return wc.Variant("ok", '{"now_ms":1}')

    def start(self, calls: int) -> None:
        """Instantiate, have the agent make so many host calls, drop the instance."""
        self.moments.clear()
        text = {**self._start["input"], "with": {"calls": calls}}
        store = wasmtime.Store(self._engine)
        handle = self._linker.instantiate(store, self._component).get_func(store, "handle")
        assert handle is not None
        answer = handle(store, json.dumps(text))
        assert answer.tag == "ok", answer.payload


def main(arguments: list[str]) -> None:
    """See the module."""
    match arguments:
        case ["compile", wasm, compiled]:
            data = Path(wasm).read_bytes()
            began = time.perf_counter()
            component = wc.Component(wasmtime.Engine(), data)
            spent = time.perf_counter() - began
            Path(compiled).write_bytes(component.serialize())
            print(spent)
        case ["once", compiled, start]:
            plain = Plain(compiled, start)
            plain.start(1)
            print(plain.moments[0])
        case ["serve", compiled, start]:
            plain = Plain(compiled, start)
            for line in sys.stdin:
                began = time.perf_counter()
                plain.start(int(line))
                whole = time.perf_counter() - began
                first = plain.moments[0] - began
                print(json.dumps({"first": first, "whole": whole, "moments": plain.moments}), flush=True)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
