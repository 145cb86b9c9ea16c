"""What a model provider gives back, and the one question it answers.

Shared by the rules provider and the HTTP dialects. Knows nothing of routes, prices or budgets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from runloop.ops import ModelComplete
from runloopd.broker.ports import WantedCall

__all__ = [
    "Completion",
    "Finish",
    "ModelProvider",
    "Usage",
    "estimated_prompt_tokens",
    "estimated_tokens",
    "prompt_bytes",
]

Finish = Literal["stop", "tools", "length", "filter", "other"]

_MESSAGE_OVERHEAD = 16
"""Tokens a chat template may put around one message, generously."""
_SCHEMA_OVERHEAD = 512
"""Tokens a server may add of its own to ask for JSON (a forced tool costs some 350 on hosted models)."""
_TOOL_OVERHEAD = 64
"""Tokens a template may put around one function, or around one call of it, generously."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens as the provider counts them; not yet believed."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One answer, whole."""

    text: str
    parts: tuple[str, ...] = ()
    """The pieces of a streamed answer; they join to ``text``."""
    model: str
    """As the server names it."""
    usage: Usage | None
    finish: Finish
    tool_calls: tuple[WantedCall, ...] = ()

    @property
    def said(self) -> str:
        """Everything the model wrote: its text, and what it asked functions for."""
        return self.text + "".join(
            f"{call.name}{call.malformed or msgspec.json.encode(call.arguments).decode()}"
            for call in self.tool_calls
        )


class ModelProvider(Protocol):
    """Something that completes a conversation."""

    async def complete(
        self,
        request: ModelComplete,
        *,
        model: str,
        timeout_s: float,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
    ) -> Completion:
        """Answer within ``timeout_s``; ``on_delta`` sees the text as it arrives.

        Raises :class:`runloopd.broker.ports.ModelCallError` with ``retryable``, and ``cost_micro_usd`` None
        when the request reached a server that may have worked on it. Honours cancellation.
        """
        ...


def prompt_bytes(request: ModelComplete) -> int:
    """Upper bound of the tokens of a prompt: a token of a byte-level vocabulary is at least one byte."""
    from runloop.digest import canonical

    size = sum(len(message.content.encode()) + _MESSAGE_OVERHEAD for message in request.messages)
    for message in request.messages:
        size += len((message.tool_call_id or "").encode())
        for call in message.tool_calls:
            size += len(call.id) + len(call.name) + len(canonical(call.arguments)) + _TOOL_OVERHEAD
    for tool in request.tools:
        size += len(tool.name) + len(tool.description.encode()) + len(canonical(tool.parameters))
        size += _TOOL_OVERHEAD
    if request.json_schema is not None:
        size += len(canonical(request.json_schema))
    if request.tools or request.json_schema is not None:
        size += _SCHEMA_OVERHEAD
    return size + _MESSAGE_OVERHEAD


def estimated_prompt_tokens(request: ModelComplete) -> int:
    """A fair guess of what a prompt weighs, tools included."""
    plain = sum(estimated_tokens(message.content) for message in request.messages)
    if not request.tools and not any(message.tool_calls for message in request.messages):
        return plain
    tools = msgspec.json.encode([request.tools, [message.tool_calls for message in request.messages]])
    return plain + estimated_tokens(tools.decode())


def estimated_tokens(text: str) -> int:
    """A fair guess, four bytes a token; never below one for text that is not empty."""
    return -(-len(text.encode()) // 4)
