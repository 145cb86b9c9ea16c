"""The functions a model asks for: gathered from fragments, made fit to be handed on.

Knows: which fragment belongs to which call, the bounds, what becomes of an id or a name no other server would
take back, and when arguments are none. Does not know: any server's JSON (the dialects), whether there is such
a function, or whether it may be called (the agent asks, the gate decides).

Nothing a model writes here is trusted. It may name what was not offered; it cannot give a call two meanings:
ids are unique in an answer, and arguments are an object or ``malformed``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from runloop.digest import canonical
from runloop.errors import UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import ModelCallError, WantedCall
from runloopd.broker.scrubber import Scrubber

__all__ = ["MAX_CALLS", "MAX_CALL_BYTES", "MAX_MALFORMED", "Gathered", "check_tools", "parameters", "wanted"]

MAX_CALLS = 32
"""Calls of one answer."""
MAX_CALL_BYTES = 256 * 1024
"""Ids, names and arguments of one answer together."""
MAX_MALFORMED = 4_096
"""Characters of what was not an object, as the agent is shown them."""
MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_MAX_DEPTH = 48
"""An answer around the arguments must still be canonical JSON, which ends at 64."""


class _Open(msgspec.Struct):
    id: str = ""
    name: str = ""
    pieces: list[str] = []


class Gathered:
    """The calls of one answer on their way in, in the order they began."""

    def __init__(self) -> None:
        self._calls: list[_Open] = []
        self._at: dict[int, _Open] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Any:
        return iter([(call.id, call.name, "".join(call.pieces)) for call in self._calls])

    def add(self, index: int | None, *, id: Any = None, name: Any = None, piece: Any = None) -> None:
        """A call, or a fragment of one: ``index`` tells which, where the server counts them.

        Raises :class:`ModelCallError` ``model.too_large`` beyond the bounds.
        """
        id_text, name_text = (value if isinstance(value, str) else "" for value in (id, name))
        arguments = _as_text(piece)
        self._size += len(id_text) + len(name_text) + len(arguments.encode(errors="replace"))
        call = self._of(index, id_text, name_text)
        if self._size > MAX_CALL_BYTES or len(self._calls) > MAX_CALLS:
            raise ModelCallError(
                f"a model asked for more than {MAX_CALLS} functions, or wrote more than"
                f" {MAX_CALL_BYTES} bytes of arguments",
                hint="offer fewer tools, or ask another model",
                code="model.too_large",
                cost_micro_usd=None,
            )
        call.id = call.id or id_text
        call.name = call.name or name_text
        if arguments:
            call.pieces.append(arguments)

    def _of(self, index: int | None, id: str, name: str) -> _Open:
        """The call a fragment belongs to.

        Some servers give each whole call the index 0, and some give none: a new id is a new call all the
        same, and without an id a name is.
        """
        known = self._at.get(index) if index is not None else self._last
        if known is not None:
            another = bool(id) and id != known.id if known.id or index is None else False
            unnumbered = index is None and bool(name) and not id
            if not (another and name) and not unnumbered:
                return known
        call = _Open()
        self._calls.append(call)
        if index is not None:
            self._at[index] = call
        return call

    @property
    def _last(self) -> _Open | None:
        return self._calls[-1] if self._calls else None


def _as_text(piece: Any) -> str:
    if piece is None or isinstance(piece, str):
        return piece or ""
    return orjson.dumps(piece).decode()  # an object, where text is the rule


def wanted(gathered: Gathered, scrubber: Scrubber, *, key: str) -> tuple[WantedCall, ...]:
    """The calls as an agent gets them. ``key`` makes ids where the server's are missing, doubled or unfit."""
    calls: list[WantedCall] = []
    for number, (id, name, text) in enumerate(gathered):
        taken = {call.id for call in calls}
        fit = _NAME.match(id) and id not in taken and scrubber.text(id) == id
        calls.append(
            _understood(id if fit else _own_id(key, number, taken), scrubber.text(name), text, scrubber)
        )
    return tuple(calls)


def _own_id(key: str, number: int, taken: set[str]) -> str:
    """Nine letters and digits, as the strictest of the servers wants them."""
    base = re.sub("[^A-Za-z0-9]", "", key)[:7].ljust(7, "0")
    while (made := f"{base}{number:02}") in taken:
        number += 1
    return made


def _understood(id: str, name: str, text: str, scrubber: Scrubber) -> WantedCall:
    fit_name = _UNFIT.sub("_", name)[:64] or "unnamed"
    try:
        value = orjson.loads(text) if text.strip() else {}
        if isinstance(value, dict) and _depth_fits(value, _MAX_DEPTH):
            value = scrubber.value(value)
            canonical(value)  # what has no canonical form could not go on record
            return WantedCall(id=id, name=fit_name, arguments=value)
    except (orjson.JSONDecodeError, UsageError):
        pass
    shown = scrubber.text(text).encode(errors="replace").decode()
    return WantedCall(id=id, name=fit_name, arguments=None, malformed=shown[:MAX_MALFORMED])


def _depth_fits(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return left > 0 and all(_depth_fits(item, left - 1) for item in items)


# --- what is offered, and what was said about it --------------------------------------------------


def parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments as every server takes it: an object's, with its properties."""
    return {"type": "object", "properties": {}, **schema}


def check_tools(request: ModelComplete) -> None:
    """Refuse (:class:`UsageError` ``op.args``) tools and tool messages no server could take."""
    why = _misoffered(request) or _misanswered(request)
    if why is not None:
        raise UsageError(f"model.complete: {why}", code="op.args")


def _misoffered(request: ModelComplete) -> str | None:
    if len(request.tools) > MAX_TOOLS:
        return f"there are {len(request.tools)} tools, more than {MAX_TOOLS}"
    seen: set[str] = set()
    for tool in request.tools:
        if not _NAME.match(tool.name):
            return f"the tool name {tool.name[:80]!r} is not 1 to 64 of letters, digits, _ and -"
        if tool.name in seen:
            return f"the tool {tool.name} is offered twice"
        if tool.parameters.get("type", "object") != "object":
            return f"the parameters of the tool {tool.name} are not the schema of an object"
        seen.add(tool.name)
    if request.tool_choice == "required" and not request.tools:
        return "tool_choice is required, and there are no tools"
    return None


def _misanswered(request: ModelComplete) -> str | None:
    """Each tool message answers, once, a call of the assistant message right before it and its answers."""
    open_ids: set[str] = set()
    for number, message in enumerate(request.messages):
        here = f"messages[{number}]"
        if message.role == "tool":
            if message.tool_call_id not in open_ids:
                return f"{here} answers {message.tool_call_id!r}, which the message before it did not ask for"
            open_ids.discard(message.tool_call_id)
        else:
            if open_ids:
                return f"{here} comes before the answer to the call {min(open_ids)!r}"
            open_ids = {call.id for call in message.tool_calls}
            why = _misasked(message.tool_calls, message.role, open_ids)
            if why is not None:
                return f"{here} {why}"
        if message.tool_calls and message.role != "assistant":
            return f"{here} has tool_calls, but it is not the assistant's"
        if message.tool_call_id is not None and message.role != "tool":
            return f"{here} has a tool_call_id, but it is not a tool's"
    return f"the call {min(open_ids)!r} is not answered" if open_ids else None


def _misasked(calls: Iterable[Any], role: str, ids: set[str]) -> str | None:
    rows = list(calls)
    if len(rows) > MAX_CALLS:
        return f"has {len(rows)} tool_calls, more than {MAX_CALLS}"
    if len(ids) < len(rows):
        return "has two tool_calls of one id"
    if not all(_NAME.match(call.id) and _NAME.match(call.name) for call in rows):
        return "has a tool call whose id or name is not 1 to 64 of letters, digits, _ and -"
    return None
