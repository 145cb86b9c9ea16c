"""``http.get``: one page of the web, within the ``net`` capability.

Knows: how a page becomes a tool's result. Does not know: how bytes travel (``providers.web``), who may reach
what (the :class:`Permission` of the call).
"""

from __future__ import annotations

from typing import Any

from runloop.caps.destination import parse_destination
from runloopd.broker.flows import place_label
from runloopd.broker.http_ops import body_text
from runloopd.broker.providers.web import WebPort, WebRequest
from runloopd.broker.toolbox import ToolContext, ToolError, ToolResult
from runloopd.broker.tools.family import Family, HostTool, number, text

__all__ = ["http_tools"]

MAX_BYTES = 512 * 1024


def http_tools(web: WebPort) -> Family:
    """The family ``http``."""

    def permit(args: dict[str, Any], context: ToolContext) -> None:
        if context.net is None:
            raise ToolError("http.get: the web cannot be reached from here", code="tool.unavailable")
        context.net.require("GET", parse_destination(args["url"]))

    async def get(args: dict[str, Any], context: ToolContext) -> ToolResult:
        place = parse_destination(args["url"])
        request = WebRequest(
            method="GET",
            place=place,
            headers=(("Accept", "text/html, application/json, text/plain;q=0.8"),),
            max_bytes=args.get("max_bytes", 65_536),
            owner=context.run,
        )
        answer = await web.exchange(request, context.net)
        said = body_text(answer)
        if said is None and answer.body:
            raise ToolError("http.get: what came back is no text", code="tool.result")
        value = {
            "status": answer.status,
            "url": str(answer.place),
            "type": answer.headers.get("content-type", ""),
            "text": said or "",
            "truncated": answer.truncated,
        }
        return ToolResult(value=value, label=place_label(answer.place, confided=context.net.inward))

    return Family(
        (
            HostTool(
                name="http.get",
                about="Fetch a page as text. Any status is an answer. Its host must be granted.",
                takes={
                    "url": text("https://host/path", 8_192, least=1),
                    "max_bytes": number("Most bytes of the page.", 1, MAX_BYTES, default=65_536),
                },
                gives={
                    "status": {"type": "integer"},
                    "url": {"type": "string"},
                    "type": {"type": "string"},
                    "text": {"type": "string"},
                    "truncated": {"type": "boolean"},
                },
                effect="read",
                run=get,
                permit=permit,
            ),
        )
    )
