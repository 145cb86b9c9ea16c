"""An answer as it was given once, written down so that it can be given again.

Knows: what a request is told apart by, and the one JSON form of an answer with its pieces, their times, its
usage, price and cost. Does not know: where it is kept and for whom (``kept``, ``cassette``).

A request is told apart by its canonical JSON (RFC 8785): no two lists of fields share bytes (attacks.md L3).
A line carries the digest of what it says, so that a torn or changed one is not taken for an answer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from runloop.config import Price
from runloop.digest import canonical, digest
from runloop.errors import FailedError, UsageError
from runloop.ops import ModelComplete
from runloopd.broker.providers.completion import Completion

__all__ = ["NotToldError", "Told", "read", "request_json", "written"]


class NotToldError(FailedError):
    """What is on record is no answer: torn, changed, or of another make. Do as if it were not there."""

    code: ClassVar[str] = "model.told"


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer."""

    key: str
    """Digest of what it answers."""
    provider: str
    model: str
    kind: str
    """Of the provider; ``rules``: no language model wrote it."""
    completion: Completion
    pieces: list[tuple[int, str]]
    """Milliseconds since it was asked for, and text; they join to the text."""
    input_tokens: int
    output_tokens: int
    estimated: bool
    cost_micro_usd: int
    price: Price
    """What it was reckoned with, its version included."""
    at_ms: int
    """When it was given."""

    @property
    def target(self) -> str:
        """``provider:model``."""
        return f"{self.provider}:{self.model}"


def request_json(request: ModelComplete) -> dict[str, Any]:
    """Everything a request says. What it leaves to the default is left out, so that a field which a later
    release adds does not make another request of it."""
    whole: dict[str, Any] = msgspec.to_builtins(request)
    default: dict[str, Any] = msgspec.to_builtins(ModelComplete(messages=[]))
    return {name: value for name, value in whole.items() if name == "messages" or value != default[name]}


def written(told: Told, **beside: Any) -> bytes:
    """One line of canonical JSON: ``{told, digest}`` and what else the keeper wants to be said with it."""
    said = msgspec.to_builtins(told)
    return canonical({**beside, "told": said, "digest": digest([said, beside])})


def read(line: bytes) -> tuple[Told, dict[str, Any]]:
    """What :func:`written` made. Raises :class:`NotToldError` for anything else."""
    try:
        found = msgspec.json.decode(line, type=dict[str, Any])
        said, wanted = found.pop("told"), found.pop("digest")
        if digest([said, found]) != wanted:
            raise NotToldError("an answer on record does not match its digest")
        told = msgspec.convert(said, Told)
    except (msgspec.MsgspecError, KeyError, RecursionError, ValueError, UsageError) as error:
        raise NotToldError("an answer on record cannot be read") from error
    if "".join(text for _, text in told.pieces) != told.completion.text:
        raise NotToldError("the pieces of an answer on record do not make its text")
    return told, found
