"""What a model server means when it answers with an error: for the user, and for another attempt.

Knows: status codes, the ways servers word what went wrong, and how they ask for patience. Does not know: who
sent the request, or whether it is tried again (``broker.routing``). A server's words are shown (bounded, and
scrubbed by the caller); they decide nothing but the code and the hint.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from runloopd.broker.ports import ModelCallError

__all__ = ["status_error"]

_OVERLOADED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MAX_WAIT_MS = 24 * 3_600_000

_TOO_LONG = (
    "context_length_exceeded",
    "exceed_context_size_error",
    "maximum context length",
    "available context size",
    "prompt is too long",
    "context window",
)
_NO_TOOLS = ("does not support tools", "tools param requires", "tool choice requires")
_MAX_SAID = 4_000
"""Characters of a server's words in a message."""
_NO_CREDIT = ("insufficient_quota", "credit balance is too low")


def status_error(name: str, status: int, body: bytes, headers: Mapping[str, str]) -> ModelCallError:
    """The failure that an answer of ``status`` (300 and more) is."""
    said, kinds = _said(body)
    tail = f": {said[:_MAX_SAID]}" if said else ""
    words = f"{kinds} {said}".lower()
    data: dict[str, Any] = {"status": status}

    def failure(why: str, hint: str, code: str, *, retryable: bool = False) -> ModelCallError:
        message = f"the model provider {name} {why} (HTTP {status}){tail}"
        return ModelCallError(message, hint=hint, code=code, retryable=retryable, **data)

    if status in (401, 403):
        return failure("refuses the key", f"check the key that models.providers.{name} names", "model.auth")
    if status == 402 or any(word in words for word in _NO_CREDIT):
        return failure(
            "has no credit left", f"look at the account behind models.providers.{name}", "model.no_credit"
        )
    if status == 413 or any(word in words for word in _TOO_LONG):
        return failure(
            "cannot take so long a conversation",
            "shorten it, or choose a model with a longer context",
            "model.too_long",
        )
    if any(word in words for word in _NO_TOOLS):
        return failure(
            "has a model that cannot call tools", "choose one that can: 'rlp providers'", "model.no_tools"
        )
    if status in _OVERLOADED:
        wait_ms = _wait_ms(headers)
        if wait_ms is not None:
            data["retry_after_ms"] = wait_ms
        return failure(
            "is overloaded or out of order",
            "try again later, or choose another with models.default",
            "model.overloaded",
            retryable=True,
        )
    return failure(
        "refuses the request", f"look at base_url and model of models.providers.{name}", "model.rejected"
    )


def _said(body: bytes) -> tuple[str, str]:
    """What the server says went wrong (``error.message``, ``error`` or ``message`` of JSON, else its text),
    and the names it has for it."""
    import orjson

    text = body.decode(errors="replace")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return text, ""
    if not isinstance(value, dict):
        return text, ""
    inner = value.get("error", value.get("message"))
    if isinstance(inner, dict):
        kinds = " ".join(word for word in (inner.get("type"), inner.get("code")) if isinstance(word, str))
        inner = inner.get("message")
    else:
        kinds = ""
    return (inner if isinstance(inner, str) else text), kinds


def _wait_ms(headers: Mapping[str, str]) -> int | None:
    """How long the server asks to be left alone: in milliseconds, in seconds, or until a date by its own
    clock. None for what is none of these, or is over; at most a day."""
    for header, unit in (("retry-after-ms", 1), ("retry-after", 1_000)):
        text = headers.get(header, "").strip()
        if len(text) < 12 and text.replace(".", "", 1).isdecimal() and text.isascii():
            return _within(float(text) * unit)
    try:
        until = parsedate_to_datetime(headers["retry-after"])
        now = parsedate_to_datetime(headers["date"])
        return _within((until - now).total_seconds() * 1_000)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _within(wait_ms: float) -> int | None:
    return int(min(wait_ms, _MAX_WAIT_MS)) if wait_ms >= 0 else None
