"""Runs an agent from source: imports its modules, calls its handler or a tool, shapes result or failure.

Shared by the runner component (inside the sandbox) and ``runloop.guest_testing`` (in process, for tests), so
that both behave alike. Knows nothing of WebAssembly or of where the source comes from. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import linecache
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from runloop.agent import Fail, Task, Tool, call_handler, call_tool, handler_ports
from runloop.host import Host, HostRefused

__all__ = ["Program", "SourceFinder", "error_text"]


class SourceFinder(MetaPathFinder, Loader):
    """Imports an agent's own modules from ``{dotted name: source}``."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self.modules = modules
        self._packages = {
            ".".join(parts[:end])
            for parts in (name.split(".") for name in modules)
            for end in range(1, len(parts))
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import system's question: is this one of ours?"""
        if fullname not in self.modules and fullname not in self._packages:
            return None
        package = fullname in self._packages
        return ModuleSpec(fullname, self, origin=self._file(fullname), is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        """Compile and run the module; tracebacks name ``<agent>/<module>.py``."""
        name = module.__name__
        source = self.modules.get(name, "")
        file = self._file(name)
        module.__file__ = file
        linecache.cache[file] = (lambda: source,)  # split into lines only when a traceback asks
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  this is the job

    @staticmethod
    def _file(name: str) -> str:
        return f"<agent>/{name.replace('.', '/')}.py"


class Program:
    """An agent's source, imported at the first task and then kept."""

    def __init__(self, modules: Mapping[str, str], entrypoint: str) -> None:
        self.finder = SourceFinder(modules)
        self._entrypoint = entrypoint
        self._handler: Any = None

    @classmethod
    def from_source(cls, answer: Any) -> Program:
        """From the answer of ``agent.source``: ``{modules: {name: source}, entrypoint: "m:function"}``."""
        return cls(dict(answer["modules"]), str(answer["entrypoint"]))

    def handle(self, text: str, host: Host) -> tuple[bool, str]:
        """Serve one input: ``(True, output)`` or ``(False, {code, message, retryable})``. Never raises.

        ``op`` of the input is ``handle`` (or left out), ``tool`` or ``describe``.
        """
        try:
            return True, self._serve(text, host)
        except BaseException as error:  # whatever the agent raises is the agent's failure
            return False, error_text(error)

    def _serve(self, text: str, host: Host) -> str:
        task = Task.from_input(text)
        if task.op == "handle":
            return call_handler(self._entry(), task, host).to_output()
        tools = self._tools()
        if task.op == "tool":
            offered = tools.get(str(task.tool))
            if offered is None:
                raise Fail(
                    "abi.tool", f"there is no tool {task.tool!r}; there is {', '.join(tools) or 'none'}"
                )
            return call_tool(offered, task.args, task, host).to_output()
        if task.op == "describe":
            described = {
                "inputs": handler_ports(self._entry()),
                "tools": [tools[name].describe() for name in sorted(tools)],
            }
            return json.dumps(described, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        raise Fail("abi.op", f"this agent cannot do {task.op!r}")

    def _entry(self) -> Any:
        if self._handler is None:
            self._handler = self._load()
        return self._handler

    def _tools(self) -> dict[str, Tool]:
        """The tools of every module of the agent that is imported by now, by id."""
        self._entry()
        found: dict[str, Tool] = {}
        for name in self.finder.modules:
            for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
                offered = getattr(value, "__runloop_tool__", None)
                if not isinstance(offered, Tool):
                    continue
                if found.setdefault(offered.id, offered).function is not offered.function:
                    raise Fail("agent.tools", f"two tools are called {offered.id!r}")
        return found

    def _load(self) -> Any:
        if self.finder not in sys.meta_path:
            sys.meta_path.insert(0, self.finder)
        module_name, _, name = self._entrypoint.partition(":")
        module = importlib.import_module(module_name)
        found = getattr(module, name or "handle", None)
        if not callable(found):
            raise Fail("agent.entrypoint", f"{module_name!r} has no function {name or 'handle'!r}")
        return found


def error_text(error: BaseException) -> str:
    """An exception as the ABI's error object, naming the agent's own line where there is one."""
    retryable = False
    if isinstance(error, Fail):
        code, message, retryable = error.code, error.message, error.retryable
    elif isinstance(error, HostRefused):
        code, message, retryable = error.code, str(error), error.retryable
    elif isinstance(error, SyntaxError):
        code = "agent.syntax"
        message = f"{error.msg} ({str(error.filename).removeprefix('<agent>/')}:{error.lineno})"
    else:
        code = "agent.exception"
        message = f"{type(error).__name__}: {_words(error)}{_place(error.__traceback__)}"
    value = {"code": str(code), "message": str(message)[:4_000], "retryable": bool(retryable)}
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(the exception cannot be shown)"


def _place(trace: TracebackType | None) -> str:
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith("<agent>/"):
            place = f" ({file.removeprefix('<agent>/')}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
