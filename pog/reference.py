"""What a reference of a person means: an event, run, approval, message, mail, file, or a digest's beginning.

Knows: the spellings, and which of several events one means. Does not know: how names become numbers
(``pog.trace``) or what led to an event (``pog.why``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pog.reader import Reader
from pog.trace import TEXTS, Trace, named_digests, says
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import Event, encode_payload

__all__ = ["Names", "digests_of", "resolved"]

_HEX = re.compile(r"[0-9a-f]{6,64}\Z")
_UUID = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f]{0,4}){0,3}(-[0-9a-f]{0,12})?\Z")
_ORIGIN_FIELDS = (
    ("artifact.created", "blob"),
    ("email.sent", "content_blob"),
    ("model.called", "answer_digest"),
    ("hostcall.delivered", "file_digest"),
    ("hostcall.delivered", "result_digest"),
    ("hostcall.delivered", "result_blob"),
    ("node.finished", "output_digest"),
    ("run.finished", "output_digest"),
    ("action.requested", "content_blob"),
    ("action.requested", "action_digest"),
    ("document.imported", "content_digest"),
    ("model.called", "request_digest"),
    ("node.scheduled", "input_digest"),
    ("node.scheduled", "input_blob"),
    ("hostcall.delivered", "args_digest"),
    ("message.sent", "body_digest"),
)
"""Where bytes come into being before where they are only mentioned."""


@dataclass(frozen=True, slots=True)
class Names:
    """The ledger, and its index abreast of it."""

    reader: Reader
    trace: Trace

    def events(self, ids: Iterable[int], kind: str) -> list[Event]:
        """Those of some events that are of a kind."""
        return [event for event in map(self.reader.event, ids) if event.kind == kind]


def resolved(names: Names, ref: str | int) -> tuple[int, tuple[int, ...]]:
    """The event a reference means, and the others it may have meant.

    Raises :class:`UsageError` for no reference at all, :class:`NotFoundError` when nothing is called so,
    :class:`ConflictError` when a prefix means several things.
    """
    text = str(ref).strip()
    if not text:
        raise UsageError("nothing to explain", hint="rlp kb why <event, run, digest, approval or address>")
    for finder in (_by_event, _by_message, _by_file, _by_mail, _by_run, _by_approval, _by_digest):
        found = finder(names, text)
        if found:
            return found[0], tuple(found[1:])
    raise NotFoundError(
        f"nothing in the ledger is called {text!r}",
        hint=f"'rlp kb search', 'rlp runs' and 'rlp approvals' show what is; the newest event is "
        f"#{names.reader.head_id()}",
        code="why.absent",
    )


def _by_event(names: Names, text: str) -> list[int]:
    number = text.removeprefix("event:").removeprefix("#")
    if not number.isascii() or not number.isdecimal() or len(number) > 15:
        return []
    event_id = int(number)
    return [event_id] if 0 < event_id <= names.reader.head_id() else []


def _by_message(names: Names, text: str) -> list[int]:
    number = text.removeprefix("msg:")
    if not number.isascii() or not number.isdecimal() or len(number) > 18:
        return []
    sent = names.events(names.trace.message(int(number)), "message.sent")
    return [e.id for e in reversed(sent) if getattr(e.payload, "msg_id", None) == int(number)]


def _by_file(names: Names, text: str) -> list[int]:
    """Writes of a file, newest first."""
    if not text.startswith("/"):
        return []
    written = names.trace.text("fs.write", "path", text)
    return [e.id for e in reversed(names.events(written, "hostcall.delivered"))]


def _by_mail(names: Names, text: str) -> list[int]:
    if "@" not in text:
        return []
    for kind, field in ((kind, field) for kind, fields in TEXTS.items() for field in fields):
        if (field == "message_id") == text.startswith("<"):
            events = names.events(names.trace.text(kind, field, text), kind)
            found = [event.id for event in events if says(encode_payload(event.payload), field, text)]
            if found:
                return found[::-1]
    return []


def _by_run(names: Names, text: str) -> list[int]:
    if not _UUID.match(text.lower()):
        return []
    try:
        run = names.reader.find_run(text)
    except NotFoundError:
        return []
    ends = [event.id for event in names.reader.events(run=run, kinds={"run.finished"})]
    return ends or [event.id for event in names.reader.events(run=run, kinds={"run.started"}, limit=1)]


def _by_approval(names: Names, text: str) -> list[int]:
    """The newest word on the approval: the decision where there is one, else the request."""
    found: dict[str, list[int]] = {}
    for event_id in names.trace.approval(text):
        event = names.reader.event(event_id)
        approval = str(getattr(event.payload, "approval", ""))
        if event.kind.startswith("action.") and approval.startswith(text):
            found.setdefault(approval, []).append(event_id)
    if len(found) > 1 and text not in found:
        raise ConflictError(f"{text!r} may be any of {', '.join(sorted(found))}", hint="type more characters")
    events = found.get(text) or next(iter(found.values()), [])
    return sorted(events, reverse=True)[:1]


def _by_digest(names: Names, text: str) -> list[int]:
    prefix = text.lower()
    if not _HEX.match(prefix):
        return []
    by_digest: dict[str, list[tuple[int, int]]] = {}
    for event_id in names.trace.digest(prefix):
        event = names.reader.event(event_id)
        for name, value in _called(names, event):
            if value.startswith(prefix):
                by_digest.setdefault(value, []).append((_rank(event.kind, name), -event.id))
    if len(by_digest) > 1:
        raise ConflictError(
            f"{text!r} is the beginning of {len(by_digest)} digests",
            hint="type more characters",
            code="digest.ambiguous",
            digests=sorted(by_digest),
        )
    return list(dict.fromkeys(-event_id for places in by_digest.values() for _, event_id in sorted(places)))


def _called(names: Names, event: Event) -> Iterator[tuple[str, str]]:
    """The digests an event names, and that of the bytes it wrote into a file."""
    yield from digests_of(event).items()
    for name, value in names.trace.written(event):
        if name == "digest":
            yield "file_digest", value


def _rank(kind: str, name: str) -> int:
    place = (kind, name)
    return _ORIGIN_FIELDS.index(place) if place in _ORIGIN_FIELDS else len(_ORIGIN_FIELDS)


def digests_of(event: Event) -> dict[str, str]:
    """Every digest and blob an event names, its own hash, and the digest of the bundle that acted."""
    found = {"hash": event.hash.hex()}
    found.update(named_digests(event.kind, encode_payload(event.payload)))
    if event.provenance.bundle:
        found["bundle"] = event.provenance.bundle
    return found
