"""A host for agents under test, in process: no daemon, no sandbox, no waiting.

    from runloop.guest_testing import FakeHost, load_agent

    def test_it_counts_words() -> None:
        agent = load_agent("path/to/agent")
        assert agent.run(ports={"text": ["a b"]}).value("out") == {"words": 2}

Knows: how to run a bundle's source as the runner does, how to script the answers of host calls. Does not
know: policy, quotas, fuel; an agent that passes here may still be refused by the gate.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runloop.authoring.source import modules_of, read_source
from runloop.authoring.toolchains.python import PythonToolchain
from runloop.bundle.manifest import Manifest, check_values, parse_manifest
from runloop.guest import Program
from runloop.host import Host
from runloop.ops import OPS, decode_args

__all__ = ["AgentUnderTest", "Call", "FakeHost", "Outcome", "Refuse", "load_agent"]

NOW_MS = 1_750_000_000_000


class Refuse(Exception):
    """Raise or return it from a scripted answer: the agent sees a refused host call."""

    def __init__(
        self, code: str, message: str = "refused", hint: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.retryable = code, message, hint, retryable


@dataclass(frozen=True)
class Call:
    """One host call an agent made."""

    op: str
    args: dict[str, Any]


Answer = Any
"""A JSON value, a :class:`Refuse`, or a function of the arguments that returns or raises one of these."""


class FakeHost:
    """Answers host calls from a script: ``FakeHost({"kb.search": [...], "mail.send": Refuse("denied")})``.

    Arguments are validated against the real table of ops. Clock, randomness, log and progress are answered
    without a script; anything else that is not scripted fails the test.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self._answers = dict(answers or {})
        self.calls: list[Call] = []
        self.host = Host(self._transport)

    def made(self, op: str) -> list[dict[str, Any]]:
        """Arguments of every call of one op, in order."""
        return [call.args for call in self.calls if call.op == op]

    def _transport(self, op: str, payload: str) -> tuple[bool, str]:
        args = json.loads(payload)
        self.calls.append(Call(op, args))
        if op in OPS:
            decode_args(op, args)
        try:
            answer = self._answer(op, args)
        except Refuse as refusal:
            answer = refusal
        if isinstance(answer, Refuse):
            error = {
                "code": answer.code,
                "message": answer.message,
                "hint": answer.hint,
                "retryable": answer.retryable,
            }
            return False, json.dumps(error)
        return True, json.dumps(answer)

    def _answer(self, op: str, args: dict[str, Any]) -> Any:
        if op in self._answers:
            answer = self._answers[op]
            return answer(args) if callable(answer) else answer
        if op == "time.now":
            return {"now_ms": NOW_MS}
        if op == "random.bytes":
            return {"base64": base64.b64encode(bytes(i % 251 for i in range(args["n"]))).decode()}
        if op in ("log.write", "progress"):
            return {}
        raise AssertionError(f"the agent called {op}, which the test gives no answer for")


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended, as the engine would see it."""

    ok: bool
    ports: dict[str, list[Any]] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    code: str = ""
    """Of the failure; empty when ``ok``."""
    message: str = ""
    retryable: bool = False

    def value(self, port: str) -> Any:
        """The last value on a port; raises AssertionError with the failure's words where there is none."""
        if not self.ok or not self.ports.get(port):
            raise AssertionError(f"nothing on {port!r}: {self.code} {self.message}")
        return self.ports[port][-1]


@dataclass(frozen=True)
class AgentUnderTest:
    """A Python agent, loaded from its folder. Every run starts with freshly imported modules."""

    manifest: Manifest
    modules: dict[str, str]

    def run(
        self,
        *,
        ports: Mapping[str, Sequence[Any]] | None = None,
        with_: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        host: FakeHost | None = None,
    ) -> Outcome:
        """One attempt. Values are checked against the manifest's ports on the way in and on the way out."""
        given = {name: list(values) for name, values in (ports or {}).items()}
        faults = check_values(self.manifest.inputs, given, direction="input")
        if faults:
            raise AssertionError("; ".join(faults))
        return self.run_input(
            {"op": "handle", "ports": given, "with": dict(with_ or {})} | _context(context), host
        )

    def call_tool(self, id: str, /, *, host: FakeHost | None = None, **args: Any) -> Outcome:
        """One call of a tool; its answer is on port ``result``."""
        return self.run_input({"op": "tool", "tool": id, "args": args} | _context(None), host)

    def run_input(self, value: Any, host: FakeHost | None = None) -> Outcome:
        """One attempt on any input, right or wrong."""
        program = Program(self.modules, self.manifest.entrypoint)
        with _modules_of(program, self.modules):
            ok, text = program.handle(json.dumps(value), (host or FakeHost()).host)
        answer = json.loads(text)
        if not ok:
            return Outcome(False, **answer)
        if isinstance(value, Mapping) and value.get("op", "handle") != "handle":
            return Outcome(True, answer.get("ports", {"tools": answer.get("tools", [])}))
        faults = check_values(self.manifest.outputs, answer["ports"], direction="output")
        if faults:
            raise AssertionError("; ".join(faults))
        return Outcome(True, answer["ports"], answer["artifacts"])


def load_agent(folder: str | Path) -> AgentUnderTest:
    """Read a Python agent from its folder."""
    files = read_source(Path(folder), PythonToolchain.leftovers)
    modules = {name: files[path].decode() for name, path in modules_of(files).items()}
    return AgentUnderTest(parse_manifest(files["manifest.toml"]), modules)


def _context(context: Mapping[str, Any] | None) -> dict[str, Any]:
    base = {"agent": "test", "node": "test", "attempt": 1, "run": "test", "trace_id": "test"}
    return {"context": {**base, **(context or {})}, "message": {}}


@contextmanager
def _modules_of(program: Program, modules: Mapping[str, str]) -> Iterator[None]:
    """Keep the test process's own modules apart from the agent's, which may have the same names."""
    before = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        if program.finder in sys.meta_path:
            sys.meta_path.remove(program.finder)
