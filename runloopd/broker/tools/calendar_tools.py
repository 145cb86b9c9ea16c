"""``calendar.list`` and ``calendar.add``: the calendar that was imported, and an event in a file.

Knows: which part of the knowledge is the calendar, and how an event is written (RFC 5545). Does not know:
calendar servers, or other people: nobody is invited.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import NotFoundError
from runloopd.broker.ports import KnowledgePort, Outcome
from runloopd.broker.providers.files import ABSENT, MAX_READ_BYTES, FilePort, Write
from runloopd.broker.toolbox import ToolContext, ToolError
from runloopd.broker.tools.family import Family, HostTool, array, number, text
from runloopd.broker.tools.file_tools import granted

__all__ = ["calendar_tools", "event_text"]

_END = b"END:VCALENDAR"
_NEW = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Runloop//calendar.add//EN\r\nEND:VCALENDAR\r\n"
_LIST = """
SELECT entry, title, starts, ends, location, start_ms, end_ms, all_day FROM calendar
WHERE type = 'event' AND status <> 'cancelled' AND start_ms < ? AND coalesce(end_ms, start_ms) >= ?
ORDER BY start_ms, entry
"""


class _Calendar:
    """The code behind the rows."""

    def __init__(self, knowledge: KnowledgePort, files: FilePort, clock: Clock) -> None:
        self._knowledge = knowledge
        self._files = files
        self._clock = clock

    async def list(self, args: dict[str, Any], context: ToolContext) -> Any:
        first, last = _moment(args["from"], "from"), _moment(args["to"], "to")
        found = await self._knowledge.query(
            _LIST, [_ms(last), _ms(first)], args.get("limit", 100), raw=False, tables=("calendar",)
        )
        events = [
            {
                "title": row["title"],
                "starts": row["starts"],
                "ends": row["ends"],
                "location": row["location"],
                "all_day": bool(row["all_day"]),
            }
            for row in found["rows"]
        ]
        return {"events": events, "truncated": found["truncated"]}

    async def add(self, args: dict[str, Any], context: ToolContext) -> Any:
        path = args["path"]
        if not path.endswith(".ics"):
            raise ToolError("calendar.add: the file's name ends with .ics", code="tool.args")
        where = granted(context, "fs_rw", path)
        try:
            part = await self._files.read(where, 0, MAX_READ_BYTES)
            before, expected = part.data, blob_digest(part.data)
            if len(before) < part.size:
                raise ToolError(f"calendar.add: {path!r} is too large to be added to")
        except NotFoundError:
            before, expected = _NEW, ABSENT
        at = before.rstrip().rfind(_END)
        if at < 0 or not before.lstrip().upper().startswith(b"BEGIN:VCALENDAR"):
            raise ToolError(f"calendar.add: {path!r} is no calendar")
        uid = _uid(context)
        event = event_text(args, uid=uid, now_ms=self._clock.now_ms()).encode()
        write = Write(place=where, data=before[:at] + event + before[at:], expected=expected, key=context.key)
        await self._files.prepare(write)
        try:
            await self._files.commit(write)
        except BaseException:
            await self._files.discard(write)
            raise
        return {"path": path, "uid": uid, "digest": blob_digest(write.data)}

    async def added(self, context: ToolContext) -> Outcome:
        try:
            part = await self._files.read(granted(context, "fs_rw", context.args["path"]), 0, MAX_READ_BYTES)
        except NotFoundError:
            return "absent"
        return "done" if _uid(context).encode() in part.data else "absent"


def _uid(context: ToolContext) -> str:
    return f"{context.key[:32]}@runloop"


def event_text(args: dict[str, Any], *, uid: str, now_ms: int) -> str:
    """One VEVENT, its lines folded. Raises :class:`ToolError` for times that are none."""
    starts, ends = args["start"], args["end"]
    if ("T" in starts) != ("T" in ends) or _moment(ends, "end") < _moment(starts, "start"):
        raise ToolError(
            "calendar.add: it ends before it starts, or one of the two is a day", code="tool.args"
        )
    lines = [
        "BEGIN:VEVENT",
        f"UID:{uid}",
        f"DTSTAMP:{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%SZ}",
        f"DTSTART{_stamp(starts, 'start')}",
        f"DTEND{_stamp(ends, 'end')}",
        f"SUMMARY:{_plain(args['title'])}",
    ]
    for name, key in (("LOCATION", "location"), ("DESCRIPTION", "text")):
        if args.get(key):
            lines.append(f"{name}:{_plain(args[key])}")
    return "".join(f"{_folded(line)}\r\n" for line in (*lines, "END:VEVENT"))


def _moment(value: str, name: str) -> datetime:
    try:
        if "T" not in value:
            return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise ToolError(f"{name}: {value[:40]!r} is neither a day nor a time", code="tool.args") from error
    if found.tzinfo is None:
        raise ToolError(f"{name}: {value[:40]!r} does not say in which zone; end it with Z", code="tool.args")
    return found.astimezone(UTC)


def _stamp(value: str, name: str) -> str:
    moment = _moment(value, name)
    return f":{moment:%Y%m%dT%H%M%SZ}" if "T" in value else f";VALUE=DATE:{moment:%Y%m%d}"


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _plain(value: str) -> str:
    """A value that cannot become another line of the file."""
    kept = "".join(char for char in value.replace("\r\n", "\n") if char == "\n" or char.isprintable())
    for char in ("\\", ";", ","):
        kept = kept.replace(char, "\\" + char)
    return kept.replace("\n", "\\n")


def _folded(line: str) -> str:
    """RFC 5545 §3.1: no line has more than 75 octets; a character is not cut."""
    parts, now = [], ""
    for char in line:
        if len((now + char).encode()) > 73:
            parts.append(now)
            now = ""
        now += char
    return "\r\n ".join((*parts, now))


def calendar_tools(knowledge: KnowledgePort, files: FilePort, clock: Clock) -> Family:
    """The family ``calendar``."""
    code = _Calendar(knowledge, files, clock)
    string = {"type": "string"}
    when = "A day (2026-11-21) or a time with its zone (2026-11-21T10:00:00Z)."

    def permit(args: dict[str, Any], context: ToolContext) -> None:
        granted(context, "fs_rw", args["path"])

    event = {
        "type": "object",
        "properties": {
            **dict.fromkeys(("title", "starts", "ends", "location"), string),
            "all_day": {"type": "boolean"},
        },
        "required": ["title", "starts", "ends", "location", "all_day"],
    }
    return Family(
        (
            HostTool(
                name="calendar.list",
                about="List events of the imported calendar in a span of time. Series are not expanded.",
                takes={
                    "from": text(when, 40, least=10),
                    "to": text(when, 40, least=10),
                    "limit": number("Most events.", 1, 500, default=100),
                },
                gives={"events": array("In order.", event, 500), "truncated": {"type": "boolean"}},
                effect="read",
                run=code.list,
                needs=("kb_read:calendar",),
            ),
            HostTool(
                name="calendar.add",
                about="Add an event to an .ics file in a granted folder; the file is made if need be.",
                takes={
                    "path": text("Absolute path of the file.", 4_095, least=5),
                    "title": text("What it is.", 500, least=1),
                    "start": text(when, 40, least=10),
                    "end": text(when, 40, least=10),
                    "location": text("Where.", 500, default=""),
                    "text": text("More about it.", 20_000, default=""),
                },
                gives={"path": string, "uid": string, "digest": string},
                effect="write",
                run=code.add,
                permit=permit,
                outcome=code.added,
                resource=("path",),
            ),
        )
    )
