"""What a server's answer is worth: read within bounds, brought into one form, errors told apart.

Knows: the results of tools, resources and prompts. Does not know: whose they are. Pure.

Everything in a result is foreign: it is data for whoever asked, with the server's label on it. Links in it
are text; nothing here or later follows them by itself.
"""

from __future__ import annotations

from typing import Any

from runloopd.broker.ports import Outcome
from runloopd.broker.tool_results import unkeepable
from runloopd.broker.toolbox import ToolError

__all__ = ["called", "checked", "listed"]

_MAX_ITEMS = 256
_KEPT = {
    "text": ("type", "text"),
    "image": ("type", "data", "mimeType"),
    "audio": ("type", "data", "mimeType"),
    "resource_link": ("type", "uri", "name", "title", "description", "mimeType"),
    "resource": ("type", "resource"),
}


def called(server: str, tool: str, answer: Any) -> dict[str, Any]:
    """``{content: [...], structured}`` of a tool's result.

    Raises :class:`ToolError`: ``tool.failed`` with the server's words when the tool says it failed, which may
    have been in the midst of it; ``tool.result`` for what is no result, or one that cannot be kept. Only the
    latter says that the tool did what it does (``tool_results`` has the rule).
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("content", []), list):
        raise _unfit(server, tool, "it is no result")
    content = [_part(part) for part in answer.get("content", [])[:_MAX_ITEMS]]
    if answer.get("isError") is True:
        words = " ".join(part["text"] for part in content if part.get("type") == "text")
        raise ToolError(
            f"{tool} of the MCP server {server} failed: {words[:2_000] or 'it does not say why'}",
            hint="what it says is foreign text",
            code="tool.failed",
            outcome="unknown",
        )
    value: dict[str, Any] = {"content": content}
    if isinstance(answer.get("structuredContent"), dict):
        value["structured"] = answer["structuredContent"]
    return checked(server, tool, value)


def listed(server: str, tool: str, answer: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The named lists of an answer, and nothing else of it."""
    if not isinstance(answer, dict):
        raise _unfit(server, tool, "it is no result")
    value = {key: _plain(answer[key]) for key in keys if answer.get(key) is not None}
    return checked(server, tool, value)


def checked(server: str, tool: str, value: dict[str, Any]) -> dict[str, Any]:
    """``value``, if it can be kept; raises :class:`ToolError` (``tool.result``)."""
    why = unkeepable(value)
    if why is not None:
        raise _unfit(server, tool, f"it {why}", outcome="done")
    return value


def _part(part: Any) -> dict[str, Any]:
    """One piece of content, without what nobody asked for."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _KEPT:
        return {"type": "unknown"}
    kept = {key: part[key] for key in _KEPT[kind] if part.get(key) is not None}
    if kind == "text":
        kept["text"] = str(kept.get("text", ""))
    return {key: _plain(value) for key, value in kept.items()}


def _plain(value: Any) -> Any:
    """Without the notes that are for programs only."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in ("_meta", "icons")}
    return [_plain(item) for item in value[:2_000]] if isinstance(value, list) else value


def _unfit(server: str, tool: str, why: str, *, outcome: Outcome = "unknown") -> ToolError:
    return ToolError(
        f"the result of {tool} of the MCP server {server} cannot be used: {why[:300]}",
        hint="report it to whoever made the server",
        code="tool.result",
        outcome=outcome,
    )
