"""What came back from a tool: whether it can be kept, and what it says about the effect behind it.

Knows: the one bound of a result, whoever gave it, and the one rule about what became of a call. Does not
know: how a tool is carried out (``tool_errands``, ``broker.tools``, ``broker.mcp``), or recording (the gate).

The rule: *done* is what somebody said was done; *absent* is what certainly did not begin, or what was refused
in words that mean it (an HTTP status of 400 to 499, a call that a server did not take); everything else is
*unknown*. So a result that says it is one and cannot be used belongs to an effect that was done
(:func:`unfit`), and a program or a server that says it failed may have done half of it before.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import orjson

from runloop.digest import canonical
from runloop.errors import RunloopError
from runloopd.broker.ports import Outcome, ProviderError
from runloopd.broker.toolbox import ToolError, ToolResult

__all__ = ["MAX_RESULT_BYTES", "failed", "parsed", "result_of", "unfit", "unkeepable"]

MAX_RESULT_BYTES = 1024 * 1024
"""Of one result, in canonical form."""


async def result_of(work: Awaitable[ToolResult], name: str) -> tuple[Any, str | None]:
    """The value, within bounds and fit to be kept, and its label."""
    result = await work
    why = unkeepable(result.value)
    if why is not None:
        raise unfit(name, f"its result {why}")
    return result.value, result.label


def unkeepable(value: Any) -> str | None:
    """Why a result cannot be kept, as the end of a sentence about it; None: it can."""
    try:
        size = len(canonical(value))
    except RunloopError:
        return "is not JSON that can be kept"
    return f"is larger than {MAX_RESULT_BYTES} bytes" if size > MAX_RESULT_BYTES else None


def parsed(name: str, text: str) -> Any:
    """A result that came as JSON text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise unfit(name, "its result is not JSON that can be kept") from error


def failed(
    name: str,
    why: str,
    *,
    code: str = "tool.failed",
    retryable: bool = False,
    outcome: Outcome = "absent",
) -> ProviderError:
    """It said no, or broke."""
    return ToolError(
        f"{name} failed: {why}",
        hint="try again later" if retryable else "report it to the author of the agent",
        code=code,
        retryable=retryable,
        outcome=outcome,
    )


def unfit(name: str, why: str) -> ProviderError:
    """It was done, and what it gave is of no use."""
    return failed(name, why, code="tool.result", outcome="done")
