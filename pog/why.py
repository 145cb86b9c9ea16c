"""Why something is as it is: from any fact back to the root, and forward to what it led to.

Knows: how to find the fact a reference means, and how to walk ``provenance.causes``. Only recorded edges are
followed; none is inferred from order, time or equal text. An edge that leads nowhere, and a fact that should
have a cause and names none, are reported as severed; a fact that was taken back is told of. Nothing is
scanned: names and forward edges are looked up (``pog.trace``), so that an explanation costs by its own size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pog.reader import Reader
from pog.retract import retracted
from pog.trace import Trace
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import ActionDecided, ActionRequested, Event, RunStarted, SourceRetracted, encode_payload

__all__ = [
    "Asked",
    "Decision",
    "Explanation",
    "Grant",
    "Hop",
    "Retracted",
    "Severed",
    "impact",
    "resolve",
    "why",
]

_MAX_HOPS = 5_000
_HEX = re.compile(r"[0-9a-f]{6,64}\Z")
_UUID = re.compile(r"[0-9a-f]{4,8}(-[0-9a-f]{0,4}){0,3}(-[0-9a-f]{0,12})?\Z")
_ROOTS = frozenset(
    {
        "run.started",
        "run.cancel_requested",
        "run.resumed",
        "contact.upserted",
        "document.imported",
        "policy.changed",
        "daemon.started",
        "daemon.stopped",
        "agent.transition",
        "agent.quarantined",
        "agent.released",
        "agent.installed",
        "agent.removed",
        "agent.index_seen",
        "trust.changed",
        "token.issued",
        "token.revoked",
        "calendar.upserted",
        "source.retracted",
        "source.restored",
        "ledger.restored",
    }
)
"""Kinds that may stand at the beginning: a person, the clock of the host, or the host itself is the cause."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """One fact on the way."""

    event: int
    kind: str
    ts_ms: int
    actor: str
    run: str | None
    depth: int
    """Edges from the fact that was asked for."""
    summary: str
    """In words."""
    causes: tuple[int, ...]
    digests: dict[str, str]
    """Every digest and blob the fact names, and the digest of the bundle that acted."""
    node: str | None = None
    attempt: int | None = None
    agent: str | None = None
    token: str | None = None
    msg_id: int | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """A capability token some hop was checked against, or an ancestor of one."""

    token: str
    parent: str | None
    holder: str
    grants: dict[str, Any]
    event: int
    revoked_event: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Severed:
    """An edge that should be there and leads nowhere."""

    event: int
    missing: str
    """``event 7``, ``token ab12…`` or ``cause``."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a person asked for: the prompt that a run began with."""

    event: int
    run: str | None
    principal: str
    prompt: str | None
    """None when the run was not started by words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a person was shown, and what they said to it."""

    approval: str
    event: int
    """The request."""
    summary: str
    content_blob: str
    """The exact bytes that were shown, by digest."""
    content_type: str
    action_digest: str
    """What the decision is bound to."""
    decided_event: int | None = None
    decision: str | None = None
    principal: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retracted:
    """A fact on the way that does not count any more."""

    event: int
    retraction: int
    reason: str
    principal: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The graph, newest fact first when walking back, oldest first when walking forward."""

    ref: str
    target: int
    """The event that the reference meant."""
    direction: Literal["back", "forward"]
    hops: tuple[Hop, ...]
    grants: tuple[Grant, ...]
    severed: tuple[Severed, ...]
    asked: tuple[Asked, ...] = ()
    decisions: tuple[Decision, ...] = ()
    retracted: tuple[Retracted, ...] = ()
    also: tuple[int, ...] = ()
    """Other events the reference may have meant."""
    truncated: bool = False

    @property
    def complete(self) -> bool:
        """Whether every way leads to a root."""
        return not self.severed and not self.truncated

    def to_json(self) -> dict[str, Any]:
        """As JSON; addresses are not masked here (``pog.redact.mask``)."""
        built: dict[str, Any] = asdict(self)
        for hop in built["hops"]:
            hop["causes"] = list(hop["causes"])
        for key in ("hops", "grants", "severed", "asked", "decisions", "retracted", "also"):
            built[key] = list(built[key])
        return {**built, "complete": self.complete}


def why(reader: Reader, ref: str | int, trace: Trace | None = None) -> Explanation:
    """Everything that led to ``ref``.

    ``ref`` is an event id, a run id, a prefix (six characters or more) of an artifact's, blob's, written
    file's or event's digest, an approval id, ``msg:<id>``, an RFC 5322 message id, the address of somebody a
    mail went to, or the absolute path of a file that an agent wrote. Without ``trace`` an index is made for
    this question alone, which takes as long as the ledger.

    Raises :class:`NotFoundError`, or :class:`ConflictError` when a prefix means several things.
    """
    with _followed(reader, trace) as names:
        target, also = _resolved(names, ref)
        depths, severed, truncated = {target: 0}, [], False
        events: dict[int, Event] = {}
        queue = [target]
        for event_id in queue:  # grows while it is walked: breadth first
            event = events[event_id] = reader.event(event_id)
            if not event.provenance.causes and not _is_root(event):
                severed.append(
                    Severed(event=event_id, missing="cause", reason=f"{event.kind} names no cause")
                )
            for cause in event.provenance.causes:
                reason = _broken(reader, event_id, cause)
                if reason:
                    severed.append(Severed(event=event_id, missing=f"event {cause}", reason=reason))
                elif cause in depths:
                    continue
                elif len(depths) >= _MAX_HOPS:
                    truncated = True
                else:
                    depths[cause] = depths[event_id] + 1
                    queue.append(cause)
        hops = [_hop(events[event_id], depths[event_id]) for event_id in sorted(events, reverse=True)]
        grants, lost = _grants(names, hops)
        return Explanation(
            ref=str(ref),
            target=target,
            direction="back",
            hops=tuple(hops),
            grants=grants,
            severed=(*severed, *lost),
            **_told(reader, list(events.values())),
            also=also,
            truncated=truncated,
        )


def impact(reader: Reader, ref: str | int, trace: Trace | None = None) -> Explanation:
    """Everything that ``ref`` led to, as far as causes are recorded. Arguments and errors as :func:`why`."""
    with _followed(reader, trace) as names:
        target, also = _resolved(names, ref)
        depths = {target: 0}
        truncated = False
        frontier, depth = [target], 0
        while frontier and not truncated:
            depth += 1
            reached = sorted(effect for effect in names.trace.effects(frontier) if effect not in depths)
            left = _MAX_HOPS - len(depths)
            truncated = len(reached) > left
            frontier = reached[:left]
            depths.update(dict.fromkeys(frontier, depth))
        events = [reader.event(event_id) for event_id in sorted(depths)]
        return Explanation(
            ref=str(ref),
            target=target,
            direction="forward",
            hops=tuple(_hop(event, depths[event.id]) for event in events),
            grants=(),
            severed=(),
            **_told(reader, events),
            also=also,
            truncated=truncated,
        )


def resolve(reader: Reader, ref: str | int, trace: Trace | None = None) -> tuple[int, tuple[int, ...]]:
    """The event a reference means, and the others it may have meant."""
    with _followed(reader, trace) as names:
        return _resolved(names, ref)


@dataclass(frozen=True, slots=True)
class _Names:
    """The ledger, and its index abreast of it."""

    reader: Reader
    trace: Trace

    def events(self, ids: Iterable[int], kind: str) -> list[Event]:
        """Those of some events that are of a kind."""
        return [event for event in map(self.reader.event, ids) if event.kind == kind]


@contextmanager
def _followed(reader: Reader, trace: Trace | None) -> Iterator[_Names]:
    with ExitStack() as stack:
        if trace is None:
            folder = stack.enter_context(TemporaryDirectory(prefix="runloop-trace-"))
            trace = stack.enter_context(Trace.open(Path(folder) / "trace.db", reader))
        trace.catch_up()
        yield _Names(reader, trace)


def _told(reader: Reader, events: Sequence[Event]) -> dict[str, Any]:
    """Beside the facts: who asked for what, what a person was shown and said, what was taken back."""
    gone = retracted(reader)
    return {
        "asked": tuple(
            Asked(
                event=event.id,
                run=event.run,
                principal=event.payload.principal,
                prompt=event.payload.origin.get("prompt"),
            )
            for event in sorted(events, key=lambda event: event.id)
            if isinstance(event.payload, RunStarted)
        ),
        "decisions": _decisions(events),
        "retracted": tuple(
            Retracted(
                event=event.id,
                retraction=gone[event.id].id,
                reason=said.reason,
                principal=said.principal,
            )
            for event in sorted(events, key=lambda event: event.id)
            if event.id in gone and isinstance(said := gone[event.id].payload, SourceRetracted)
        ),
    }


def _decisions(events: Sequence[Event]) -> tuple[Decision, ...]:
    found: dict[str, Decision] = {}
    for event in sorted(events, key=lambda event: event.id):
        said = event.payload
        if isinstance(said, ActionRequested):
            found[said.approval] = Decision(
                approval=said.approval,
                event=event.id,
                summary=str(said.action.get("summary", said.effect)),
                content_blob=said.content_blob,
                content_type=said.content_type,
                action_digest=said.action_digest,
            )
        elif isinstance(said, ActionDecided) and said.approval in found:
            found[said.approval] = replace(
                found[said.approval],
                decided_event=event.id,
                decision=said.decision,
                principal=said.principal,
                note=said.note,
            )
    return tuple(found.values())


def _resolved(names: _Names, ref: str | int) -> tuple[int, tuple[int, ...]]:
    text = str(ref).strip()
    if not text:
        raise UsageError("nothing to explain", hint="rlp kb why <event, run, digest, approval or address>")
    for finder in (_by_event, _by_message, _by_file, _by_mail, _by_run, _by_approval, _by_digest):
        found = finder(names, text)
        if found:
            return found[0], tuple(found[1:])
    raise NotFoundError(
        f"nothing in the ledger is called {text!r}",
        hint="'rlp runs', 'rlp approvals' and 'rlp trace <run>' show what is",
        code="why.absent",
    )


def _by_event(names: _Names, text: str) -> list[int]:
    number = text.removeprefix("event:").removeprefix("#")
    if not number.isascii() or not number.isdecimal() or len(number) > 15:
        return []
    event_id = int(number)
    return [event_id] if 0 < event_id <= names.reader.head_id() else []


def _by_message(names: _Names, text: str) -> list[int]:
    number = text.removeprefix("msg:")
    if not number.isascii() or not number.isdecimal() or len(number) > 18:
        return []
    sent = names.events(names.trace.message(int(number)), "message.sent")
    return [e.id for e in reversed(sent) if getattr(e.payload, "msg_id", None) == int(number)]


def _by_file(names: _Names, text: str) -> list[int]:
    """Writes of a file, newest first."""
    if not text.startswith("/"):
        return []
    written = names.trace.text("fs.write", "path", text)
    return [e.id for e in reversed(names.events(written, "hostcall.delivered"))]


def _by_mail(names: _Names, text: str) -> list[int]:
    if "@" not in text:
        return []
    places = (
        [("email.sent", "message_id")]
        if text.startswith("<")
        else [
            ("email.sent", "recipients"),
            ("action.requested", "action.recipients"),
            ("contact.upserted", "emails"),
            ("document.imported", "people"),
            ("calendar.upserted", "people"),
        ]
    )
    for kind, field in places:
        events = names.events(names.trace.text(kind, field, text), kind)
        found = [event.id for event in events if _says(event, field, text)]
        if found:
            return found[::-1]
    return []


def _says(event: Event, field: str, text: str) -> bool:
    value: Any = encode_payload(event.payload)
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list):
        return any(isinstance(item, str) and item.lower() == text.lower() for item in value)
    return bool(value == text)


def _by_run(names: _Names, text: str) -> list[int]:
    if not _UUID.match(text.lower()):
        return []
    try:
        run = names.reader.find_run(text)
    except NotFoundError:
        return []
    ends = [event.id for event in names.reader.events(run=run, kinds={"run.finished"})]
    return ends or [event.id for event in names.reader.events(run=run, kinds={"run.started"}, limit=1)]


def _by_approval(names: _Names, text: str) -> list[int]:
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


def _by_digest(names: _Names, text: str) -> list[int]:
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


def _called(names: _Names, event: Event) -> Iterator[tuple[str, str]]:
    """The digests an event names, and that of the bytes it wrote into a file."""
    yield from _digests(event).items()
    for name, value in names.trace.written(event):
        if name == "digest":
            yield "file_digest", value


def _rank(kind: str, name: str) -> int:
    place = (kind, name)
    return _ORIGIN_FIELDS.index(place) if place in _ORIGIN_FIELDS else len(_ORIGIN_FIELDS)


def _is_root(event: Event) -> bool:
    """Whether it may stand at the beginning. What is asked outside of any run, a person has asked for."""
    return event.kind in _ROOTS or (event.kind == "action.requested" and event.run is None)


def _broken(reader: Reader, event_id: int, cause: int) -> str | None:
    if cause >= event_id:
        return "a cause cannot be younger than its effect"
    try:
        reader.event(cause)
    except NotFoundError:
        return "it is not in the ledger"
    return None


def _hop(event: Event, depth: int) -> Hop:
    stamp = event.provenance
    return Hop(
        event=event.id,
        kind=event.kind,
        ts_ms=event.ts_ms,
        actor=event.actor,
        run=event.run,
        depth=depth,
        summary=_summary(event),
        causes=stamp.causes,
        digests=_digests(event),
        node=stamp.node or getattr(event.payload, "node", None),
        attempt=stamp.attempt or getattr(event.payload, "attempt", None),
        agent=stamp.agent,
        token=stamp.token,
        msg_id=stamp.msg_id or getattr(event.payload, "msg_id", None),
        label=stamp.label,
    )


def _digests(event: Event) -> dict[str, str]:
    found = {"hash": event.hash.hex()}
    for name, value in _strings(encode_payload(event.payload), ""):
        last = name.rpartition(".")[2]
        if len(value) == 64 and (last.endswith(("_digest", "_blob")) or last in {"blob", "bundle"}):
            found[name] = value
    if event.kind == "node.finished":
        for index, value in enumerate((getattr(event.payload, "output", None) or {}).get("artifacts", ())):
            if isinstance(value, str):
                found[f"artifacts.{index}"] = value
    if event.provenance.bundle:
        found["bundle"] = event.provenance.bundle
    return found


def _strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{name}.{key}" if name else key)


def _grants(names: _Names, hops: Iterable[Hop]) -> tuple[tuple[Grant, ...], list[Severed]]:
    """The tokens that were checked on the way, each with its parents up to the root of authority."""
    found: dict[str, Grant] = {}
    lost: list[Severed] = []
    for hop in hops:
        token, holder = hop.token, hop.event
        while token is not None and token not in found:
            about = [e for e in map(names.reader.event, names.trace.token(token)) if _of_token(e, token)]
            issued = [event for event in about if event.kind == "token.issued"]
            if not issued:
                if all(cut.missing != f"token {token}" for cut in lost):
                    reason = "its issue is not in the ledger"
                    lost.append(Severed(event=holder, missing=f"token {token}", reason=reason))
                break
            payload = encode_payload(issued[0].payload)
            revoked = [event.id for event in about if event.kind == "token.revoked"]
            found[token] = Grant(
                token=token,
                parent=payload["parent"],
                holder=payload["holder"],
                grants=payload["grants"],
                event=issued[0].id,
                revoked_event=revoked[0] if revoked else None,
            )
            token, holder = payload["parent"], issued[0].id
    return tuple(found.values()), lost


def _of_token(event: Event, token: str) -> bool:
    return getattr(event.payload, "token", None) == token


_HOW = {
    "install": "installed",
    "upgrade": "upgraded to",
    "downgrade": "went down to",
    "rollback": "rolled back to",
    "swap": "swapped for the author's next build",
}
_TRUST = {
    "add": "now trusts the publisher",
    "remove": "no longer trusts the publisher",
    "revoke": "revoked",
}
_WORDS: dict[str, Callable[[Any], str]] = {
    "daemon.started": lambda p: f"daemon {p.build} started",
    "daemon.stopped": lambda p: f"daemon stopped: {p.reason}",
    "run.started": lambda p: (
        f"{p.principal} started {p.opening}"
        + (f" by asking {p.origin['prompt']!r}" if p.origin.get("prompt") else "")
    ),
    "run.resumed": lambda p: f"run taken up again: {p.reason}",
    "run.cancel_requested": lambda p: f"{p.principal} asked to cancel: {p.reason}",
    "run.finished": lambda p: f"run {p.outcome}" + (f" because {p.clause}" if p.clause else ""),
    "node.scheduled": lambda p: f"attempt {p.attempt} of {p.node} scheduled",
    "node.finished": lambda p: f"attempt {p.attempt} of {p.node} {p.status}",
    "node.skipped": lambda p: f"{p.node} skipped: {p.reason}",
    "node.cancelled": lambda p: f"{p.node} cancelled: {p.reason}",
    "message.sent": lambda p: f"{p.sender} sent {p.type} to {p.receiver}, {p.size} bytes",
    "topic.published": lambda p: f"{p.publisher} published {p.type} on {p.topic}, {p.size} bytes",
    "consumer.advanced": lambda p: f"consumer {p.consumer} of {p.owner} took everything up to {p.position}",
    "consumer.removed": lambda p: f"{p.owner} removed the consumer {p.consumer}",
    "hostcall.admitted": lambda p: f"{p.node} was let through to {p.op}",
    "hostcall.delivered": lambda p: f"{p.node} called {p.op} and was {'answered' if p.ok else 'refused'}",
    "model.called": lambda p: (
        f"{p.provider} {p.model} turned text into vectors for {p.cost_micro_usd} micro-dollars"
        if p.finish == "embedded"
        else f"{p.provider} {p.model} {'wrote' if p.generated else 'filled in (no language model)'} "
        f"{p.output_tokens} tokens for {p.cost_micro_usd} micro-dollars"
    ),
    "action.requested": lambda p: f"{p.op} waits for a person: {p.action.get('summary', p.effect)}",
    "action.decided": lambda p: f"{p.principal} {p.decision} it",
    "action.claimed": lambda p: "the approval was used",
    "email.sent": lambda p: f"mail {p.subject!r} went to {', '.join(p.recipients)} by {p.provider}",
    "artifact.created": lambda p: f"{p.node} made {p.name} ({p.media_type}, {p.size} bytes)",
    "contact.upserted": lambda p: f"contact {p.name} learnt from {p.source or 'the user'}",
    "document.imported": lambda p: f"{p.type} {p.title!r} learnt from {p.source or 'the user'}",
    "calendar.upserted": lambda p: f"{p.type} {p.title!r} learnt from {p.source or 'the user'}",
    "memory.updated": lambda p: f"memory {p.namespace}/{p.key} is now at version {p.entry_version}",
    "memory.forgotten": lambda p: f"memory {p.namespace}/{p.key} was forgotten (version {p.entry_version})",
    "promise.created": lambda p: (
        f"{p.node} waits for {'a person' if p.resolver == 'operator' else 'a word'}"
        + (f": {p.question}" if p.question else "")
    ),
    "promise.resolved": lambda p: f"{p.principal} said what was promised",
    "promise.timed_out": lambda p: f"nobody said it in time ({p.reason.replace('_', ' ')})",
    "ledger.restored": lambda p: f"{p.principal} put a {p.source} of {p.head_id} events in its place",
    "source.retracted": lambda p: f"{p.principal} took back event {p.source}: {p.reason}",
    "source.restored": lambda p: f"{p.principal} let event {p.retraction}'s facts count again: {p.reason}",
    "token.issued": lambda p: f"token for {p.holder} issued",
    "token.revoked": lambda p: f"token revoked: {p.reason}",
    "cap.audit": lambda p: f"{p.capability} for {p.op} {p.decision}: {p.reason}",
    "policy.changed": lambda p: f"{p.principal} changed {p.capability} of {p.agent}: {p.change}",
    "agent.transition": lambda p: f"{p.agent} went from {p.before} to {p.after}",
    "agent.quarantined": lambda p: f"{p.name} was quarantined: {p.reason}",
    "agent.released": lambda p: f"{p.principal} released {p.name}: {p.reason}",
    "agent.installed": lambda p: (
        f"{p.principal} {_HOW[p.how]} {p.name} {p.agent_version} of {p.publisher or 'this home'}"
        + (" (development key)" if p.dev else "")
    ),
    "agent.removed": lambda p: f"{p.principal} removed {p.name} {p.agent_version}",
    "agent.index_seen": lambda p: f"index {p.serial} of {p.publisher} read, good until {p.expires}",
    "trust.changed": lambda p: (
        f"{p.principal} {_TRUST[p.change]} {p.subject}" + (f": {p.reason}" if p.reason else "")
    ),
    "quota.warned": lambda p: f"{p.agent} has used {p.used} of {p.limit} {p.resource}",
    "quota.exceeded": lambda p: f"{p.agent} used up {p.limit} {p.resource}",
    "timer.set": lambda p: f"timer {p.timer} set",
    "timer.fired": lambda p: f"timer {p.timer} fired",
}


def _summary(event: Event) -> str:
    words = _WORDS.get(event.kind)
    return words(event.payload) if words else event.kind
