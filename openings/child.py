"""A run that serves a node of another run: what it is given, what it gives, what its failure means there.

Pure, and the same live, after a crash and in a replay. Does not know: how such a run is started and waited
for (``runloopd.runs.children``), which openings may nest (``nest``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openings.definition import Opening, Retry
from openings.state import RunState
from runloop.events import GuestError, RunFinished

__all__ = ["answer", "given_params", "inner", "result"]


def inner(around: Opening, name: str) -> Opening | None:
    """The definition a nested run has: that of its name, with those openings at hand that may nest in it."""
    found = around.openings.get(name)
    if found is None:
        return None
    reached: dict[str, Opening] = {}
    waiting = [found]
    while waiting:
        for node in waiting.pop().nodes:
            if (nested := around.openings.get(node.nests or "")) is not None and nested.name not in reached:
                reached[nested.name] = nested
                waiting.append(nested)
    return replace(found, openings=dict(sorted(reached.items())))


def given_params(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the input ``{ports, with}`` of an attempt: the last value of a port goes before."""
    ports = given.get("ports", {})
    return {**given.get("with", {}), **{name: values[-1] for name, values in ports.items() if values}}


def answer(run: str, child: RunState) -> dict[str, Any]:
    """What the call that delegated to a run is told when it succeeded: ports as :func:`result` gives them."""
    return {"run": run, "ports": _ports(child)}


def _ports(child: RunState) -> dict[str, Any]:
    outputs = {} if child.opening is None else child.opening.outputs
    return {port: list(values) for port, ref in outputs.items() if (values := child.values(ref))}


def result(
    child: RunState, finished: RunFinished, retry: Retry
) -> tuple[dict[str, Any] | None, GuestError | None]:
    """Output or error of the attempt that a finished run served. ``retry``: of the node.

    Its output ports are what it saves. A failed one may be tried again, as a new run, if the node says so and
    nobody denied it anything.
    """
    if finished.outcome == "succeeded":
        return {"ports": _ports(child), "artifacts": []}, None
    why = finished.error or GuestError(code="run.failed", message=f"it ended as {finished.outcome}")
    denied = any(node.denied for node in child.nodes.values())
    again = retry.max_attempts > 1 and finished.outcome == "failed" and not denied
    return None, GuestError(code=why.code, message=why.message, retryable=again)
