"""What the author of a Python agent writes against: a handler, its task, its result, its failure.

    from runloop.agent import Fail, Result, Task, handler
    from runloop.host import Host

    @handler
    def handle(task: Task, host: Host) -> Result:
        return Result.of(out={"words": len(task.port("text").split())})

A handler may name its input ports instead, and tools are functions whose type hints are their schemas:

    @handler
    def handle(text: str, host: Host) -> Result: ...

    @tool("words.count")
    def count(text: str, least: int = 1) -> dict[str, int]: ...

Knows: shapes of the ABI's input and output. Does not know: how the source got here (``runloop.guest``) or
what the world offers (``runloop.host``). Runs inside the sandbox, so it imports the standard library only.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from runloop.schema import Misfit, arguments_schema, build, plain, schema_for

__all__ = ["Fail", "Handler", "Result", "Task", "Tool", "handler", "tool"]

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
    op: str = "handle"
    """What is asked for: ``handle``, ``tool`` or ``describe``."""
    tool: str = ""
    """Of ``tool``: which one."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Of ``tool``: its arguments."""

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
        names = ("ports", "with", "context", "message", "args")
        parts = [{} if value.get(name) is None else value[name] for name in names]
        if not all(isinstance(part, dict) for part in parts) or not all(
            isinstance(values, list) for values in parts[0].values()
        ):
            raise Fail(
                "abi.input", "the input has no ports, with, context, message and args of the right shape"
            )
        return cls(
            ports=parts[0],
            with_=parts[1],
            context=parts[2],
            message=parts[3],
            op=str(value.get("op", "handle")),
            tool=str(value.get("tool") or ""),
            args=parts[4],
        )


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


Handler = Callable[..., Any]
"""``handle(task, host)``, or one parameter for each input port it takes, by name.

A mapping it returns is ``{port: value}``; a dataclass goes to port ``out``.
"""

H = TypeVar("H", bound=Callable[..., Any])

_GIVEN = ("task", "host")
"""Parameters that are no ports and no arguments: the whole task, and the gate."""
_TOOL = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\Z")


def handler(function: H) -> H:
    """Mark the function that serves tasks, so that readers and tools find it."""
    function.__runloop_handler__ = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class Tool:
    """One thing an agent can do for others, with its schemas."""

    id: str
    """``family.verb``, unique in the agent."""
    description: str
    function: Callable[..., Any]

    def describe(self) -> dict[str, Any]:
        """As ``tools.json`` has it; raises TypeError for hints that JSON cannot carry."""
        result = get_type_hints(self.function, include_extras=True).get("return", Any)
        return {
            "id": self.id,
            "description": self.description,
            "input_schema": arguments_schema(self.function, _GIVEN),
            "result_schema": schema_for(result),
        }


def tool(id: str, *, description: str = "") -> Callable[[H], H]:
    """Offer a function as a tool. Its hints become the schemas, its docstring's first line the description.

    Parameters called ``host`` and ``task`` get the gate and the task, and are not part of the schema.
    """
    if not _TOOL.match(id):
        raise ValueError(f"{id!r} is not a tool's id; write family.verb, as 'weather.get_forecast'")

    def mark(function: H) -> H:
        words = description or (inspect.getdoc(function) or "").partition("\n")[0]
        function.__runloop_tool__ = Tool(id, words, function)  # type: ignore[attr-defined]
        return function

    return mark


def call_tool(offered: Tool, args: Mapping[str, Any], task: Task, host: Any) -> Result:
    """Call a tool with JSON arguments; its answer is on port ``result``."""
    value = offered.function(**_arguments(offered.function, args, task, host, what="argument"))
    return Result(ports={"result": [plain(value)]})


def call_handler(function: Handler, task: Task, host: Any) -> Result:
    """Call a handler of either form and give its answer one shape."""
    if not _names_ports(function):
        value = function(task, host)
    else:
        ports = {name: values[-1] for name, values in task.ports.items() if values}
        value = function(**_arguments(function, ports, task, host, what="input port"))
    if isinstance(value, Result):
        return value
    value = {"out": plain(value)} if hasattr(type(value), "__dataclass_fields__") else value
    if isinstance(value, Mapping):
        return Result(ports={str(name): [plain(item)] for name, item in value.items()})
    kind = type(value).__name__
    raise Fail("agent.output", f"the handler returned {kind}, not a Result or a mapping of ports")


def _names_ports(function: Callable[..., Any]) -> bool:
    """Two bare parameters are the task and the gate, whatever an author calls them."""
    code = getattr(function, "__code__", None)
    # The usual case, told without ``inspect``: what it touches is memory that every instance would copy.
    if code is not None and code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] == ("task", "host"):
        return False
    parameters = inspect.signature(function).parameters
    if set(parameters) <= set(_GIVEN) or all(p.annotation is p.empty for p in parameters.values()):
        return False
    return Task not in get_type_hints(function).values()


def handler_ports(function: Handler) -> dict[str, Any] | None:
    """``{port: schema}`` of a handler that names its ports; None for one that takes the whole task."""
    if not _names_ports(function):
        return None
    return arguments_schema(function, _GIVEN)


def _arguments(
    function: Callable[..., Any], values: Mapping[str, Any], task: Task, host: Any, *, what: str
) -> dict[str, Any]:
    """Keyword arguments for ``function``, each of the type its hint names. Raises :class:`Fail`."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    made: dict[str, Any] = {
        name: value for name, value in (("task", task), ("host", host)) if name in parameters
    }
    for name in values:
        if name not in parameters or name in _GIVEN:
            raise Fail("task.arguments", f"there is no {what} {name!r} of {function.__name__}")
    for name, parameter in parameters.items():
        if name in _GIVEN:
            continue
        if name not in values:
            if parameter.default is parameter.empty:
                raise Fail("task.arguments", f"nothing was given for {what} {name!r}")
            continue
        try:
            made[name] = build(hints.get(name, Any), values[name], f"{what} {name!r}")
        except Misfit as misfit:
            raise Fail("task.arguments", str(misfit)) from misfit
    return made
