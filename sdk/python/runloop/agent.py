"""What the author of a Python agent writes against: a handler, its task, its result, its failure.

    from runloop.agent import Fail, Result, Task, handler
    from runloop.host import Host

    @handler
    def handle(task: Task, host: Host) -> Result:
        return Result.of(out={"words": len(task.port("text").split())})

Knows: shapes of the ABI's input and output. Does not know: how the source got here (``runloop.guest``) or
what the world offers (``runloop.host``). Runs inside the sandbox, so it imports the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["Fail", "Handler", "Result", "Task", "handler"]

_MISSING: Any = object()


class Fail(Exception):
    """End the attempt on purpose: the work cannot be done, and here is why, in words for a person.

    ``retryable`` allows the engine to try again as the opening's ``retry`` says.
    """

    def __init__(self, code: str, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True)
class Task:
    """One piece of work: what arrived on the ports, what the opening's ``with`` says, and for whom."""

    ports: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Input port -> the values delivered to it, in order."""
    with_: Mapping[str, Any] = field(default_factory=dict)
    """The node's ``with`` block, templates resolved."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """``agent``, ``node``, ``attempt``, ``run``, ``trace_id``, and ``deadline_ms`` where there is one."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """The envelope that asked: ``type``, ``payload``, ``meta``."""

    def port(self, name: str, default: Any = _MISSING) -> Any:
        """The last value on a port; without a default, a port that got none fails the attempt."""
        values = self.ports.get(name)
        if values:
            return values[-1]
        if default is _MISSING:
            raise Fail("task.port", f"nothing arrived on input port {name!r}")
        return default

    def all(self, name: str) -> list[Any]:
        """Every value on a port, in order; empty when none arrived."""
        return list(self.ports.get(name) or ())

    def param(self, name: str, default: Any = _MISSING) -> Any:
        """A value of the ``with`` block; without a default, a missing one fails the attempt."""
        value = self.with_.get(name, _MISSING)
        if value is not _MISSING:
            return value
        if default is _MISSING:
            raise Fail("task.with", f"the opening gives no {name!r} under 'with'")
        return default

    @classmethod
    def from_input(cls, text: str) -> Task:
        """The JSON text ``handle`` was called with; raises :class:`Fail` for anything else."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise Fail("abi.input", f"the input is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise Fail("abi.input", "the input is not a JSON object")
        if value.get("op", "handle") != "handle":
            raise Fail("abi.op", f"this agent cannot do {value['op']!r}")
        names = ("ports", "with", "context", "message")
        parts = [{} if value.get(name) is None else value[name] for name in names]
        if not all(isinstance(part, dict) for part in parts) or not all(
            isinstance(values, list) for values in parts[0].values()
        ):
            raise Fail("abi.input", "the input has no ports, with, context and message of the right shape")
        return cls(ports=parts[0], with_=parts[1], context=parts[2], message=parts[3])


@dataclass(frozen=True)
class Result:
    """What an attempt produced."""

    ports: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Output port -> list of values."""
    artifacts: Sequence[str] = ()
    """Digests that ``host.put_artifact`` returned."""

    @classmethod
    def of(cls, **values: Any) -> Result:
        """One value for each named port: ``Result.of(out=draft)``."""
        return cls(ports={name: [value] for name, value in values.items()})

    def to_output(self) -> str:
        """The JSON text the ABI returns; raises :class:`Fail` for values that are not JSON."""
        try:
            ports = {str(name): list(values) for name, values in self.ports.items()}
            text = json.dumps(
                {"ports": ports, "artifacts": [str(digest) for digest in self.artifacts]},
                ensure_ascii=False,
                allow_nan=False,
                separators=(",", ":"),
                sort_keys=True,
            )
            text.encode()  # a lone surrogate cannot leave the guest
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise Fail("agent.output", f"the result is not JSON: {error}") from error
        return text


Handler = Callable[[Task, Any], "Result | Mapping[str, Any]"]
"""``handle(task, host)``; a mapping it returns is ``{port: value}``."""

H = TypeVar("H", bound=Callable[..., Any])


def handler(function: H) -> H:
    """Mark the function that serves tasks, so that readers and tools find it."""
    function.__runloop_handler__ = True  # type: ignore[attr-defined]
    return function
