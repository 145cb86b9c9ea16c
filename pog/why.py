"""Why something is as it is: from any fact back to the root, and forward to what it led to.

Knows: how to find the fact a reference means, and how to walk ``provenance.causes``. Only recorded edges are
followed; none is inferred from order, time or equal text. An edge that leads nowhere, and a fact that should
have a cause and names none, are reported as severed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pog.reader import Reader
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import Event, encode_payload

__all__ = ["Explanation", "Grant", "Hop", "Severed", "impact", "resolve", "why"]

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
    }
)
"""Kinds that may stand at the beginning: a person, the clock of the host, or the host itself is the cause."""

_ORIGIN_FIELDS = (
    ("artifact.created", "blob"),
    ("email.sent", "content_blob"),
    ("model.called", "answer_digest"),
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
class Explanation:
    """The graph, newest fact first when walking back, oldest first when walking forward."""

    ref: str
    target: int
    """The event that the reference meant."""
    direction: Literal["back", "forward"]
    hops: tuple[Hop, ...]
    grants: tuple[Grant, ...]
    severed: tuple[Severed, ...]
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
        for key in ("hops", "grants", "severed", "also"):
            built[key] = list(built[key])
        return {**built, "complete": self.complete}


def why(reader: Reader, ref: str | int) -> Explanation:
    """Everything that led to ``ref``.

    ``ref`` is an event id, a run id, a prefix (six characters or more) of an artifact's, blob's or event's
    digest, an approval id, ``msg:<id>``, an RFC 5322 message id, or the address of somebody a mail went to.
    Raises :class:`NotFoundError`, or :class:`ConflictError` when a prefix means several things.
    """
    target, also = resolve(reader, ref)
    depths, severed, truncated = {target: 0}, [], False
    events: dict[int, Event] = {}
    queue = [target]
    for event_id in queue:  # grows while it is walked: breadth first
        event = events[event_id] = reader.event(event_id)
        if not event.provenance.causes and not _is_root(event):
            severed.append(Severed(event=event_id, missing="cause", reason=f"{event.kind} names no cause"))
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
    grants, lost = _grants(reader, hops)
    return Explanation(
        ref=str(ref),
        target=target,
        direction="back",
        hops=tuple(hops),
        grants=grants,
        severed=(*severed, *lost),
        also=also,
        truncated=truncated,
    )


def impact(reader: Reader, ref: str | int) -> Explanation:
    """Everything that ``ref`` led to, as far as causes are recorded."""
    target, also = resolve(reader, ref)
    depths = {target: 0}
    truncated = False
    for event_id, causes in reader.edges(target):
        reached = [depths[cause] for cause in causes if cause in depths]
        if reached:
            if len(depths) >= _MAX_HOPS:
                truncated = True
                break
            depths[event_id] = min(reached) + 1
    hops = [_hop(reader.event(event_id), depth) for event_id, depth in sorted(depths.items())]
    return Explanation(
        ref=str(ref),
        target=target,
        direction="forward",
        hops=tuple(hops),
        grants=(),
        severed=(),
        also=also,
        truncated=truncated,
    )


def resolve(reader: Reader, ref: str | int) -> tuple[int, tuple[int, ...]]:
    """The event a reference means, and the others it may have meant."""
    text = str(ref).strip()
    if not text:
        raise UsageError("nothing to explain", hint="rlp kb why <event, run, digest, approval or address>")
    for finder in (_by_event, _by_message, _by_mail, _by_run, _by_approval, _by_digest):
        found = finder(reader, text)
        if found:
            return found[0], tuple(found[1:])
    raise NotFoundError(
        f"nothing in the ledger is called {text!r}",
        hint="'rlp runs', 'rlp approvals' and 'rlp trace <run>' show what is",
        code="why.absent",
    )


def _by_event(reader: Reader, text: str) -> list[int]:
    number = text.removeprefix("event:").removeprefix("#")
    if not number.isascii() or not number.isdecimal() or len(number) > 15:
        return []
    event_id = int(number)
    return [event_id] if 0 < event_id <= reader.head_id() else []


def _by_message(reader: Reader, text: str) -> list[int]:
    number = text.removeprefix("msg:")
    if not number.isascii() or not number.isdecimal():
        return []
    return reader.ids_where("message.sent", "msg_id", int(number))[::-1] if len(number) <= 18 else []


def _by_mail(reader: Reader, text: str) -> list[int]:
    if "@" not in text:
        return []
    if text.startswith("<"):
        return reader.ids_where("email.sent", "message_id", text)[::-1]
    for kind, field in (
        ("email.sent", "recipients"),
        ("action.requested", "action.recipients"),
        ("contact.upserted", "emails"),
        ("document.imported", "people"),
    ):
        found = reader.ids_where(kind, field, text, match="listed")
        if found:
            return found[::-1]
    return []


def _by_run(reader: Reader, text: str) -> list[int]:
    if not _UUID.match(text.lower()):
        return []
    try:
        run = reader.find_run(text)
    except NotFoundError:
        return []
    ends = [event.id for event in reader.events(run=run, kinds={"run.finished"})]
    return ends or [event.id for event in reader.events(run=run, kinds={"run.started"}, limit=1)]


def _by_approval(reader: Reader, text: str) -> list[int]:
    """The newest word on the approval: the decision where there is one, else the request."""
    found: dict[str, list[int]] = {}
    for kind in ("action.requested", "action.decided", "action.claimed"):
        for event_id in reader.ids_where(kind, "approval", text, match="prefix"):
            found.setdefault(str(getattr(reader.event(event_id).payload, "approval", "")), []).append(
                event_id
            )
    if len(found) > 1 and text not in found:
        raise ConflictError(f"{text!r} may be any of {', '.join(sorted(found))}", hint="type more characters")
    events = found.get(text) or next(iter(found.values()), [])
    return sorted(events, reverse=True)[:1]


def _by_digest(reader: Reader, text: str) -> list[int]:
    prefix = text.lower()
    if not _HEX.match(prefix):
        return []
    events = [reader.event(event_id) for event_id in reader.mentions(prefix)]
    by_digest: dict[str, list[tuple[int, int]]] = {}
    for event in events:
        for name, value in _digests(event).items():
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


def _grants(reader: Reader, hops: Iterable[Hop]) -> tuple[tuple[Grant, ...], list[Severed]]:
    """The tokens that were checked on the way, each with its parents up to the root of authority."""
    found: dict[str, Grant] = {}
    lost: list[Severed] = []
    for hop in hops:
        token, holder = hop.token, hop.event
        while token is not None and token not in found:
            issued = reader.ids_where("token.issued", "token", token)
            if not issued:
                if all(cut.missing != f"token {token}" for cut in lost):
                    reason = "its issue is not in the ledger"
                    lost.append(Severed(event=holder, missing=f"token {token}", reason=reason))
                break
            payload = encode_payload(reader.event(issued[0]).payload)
            revoked = reader.ids_where("token.revoked", "token", token)
            found[token] = Grant(
                token=token,
                parent=payload["parent"],
                holder=payload["holder"],
                grants=payload["grants"],
                event=issued[0],
                revoked_event=revoked[0] if revoked else None,
            )
            token, holder = payload["parent"], issued[0]
    return tuple(found.values()), lost


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
    "hostcall.admitted": lambda p: f"{p.node} was let through to {p.op}",
    "hostcall.delivered": lambda p: f"{p.node} called {p.op} and was {'answered' if p.ok else 'refused'}",
    "model.called": lambda p: (
        f"{p.provider} {p.model} {'wrote' if p.generated else 'filled in (no language model)'} "
        f"{p.output_tokens} tokens for {p.cost_micro_usd} micro-dollars"
    ),
    "action.requested": lambda p: f"{p.op} waits for a person: {p.action.get('summary', p.effect)}",
    "action.decided": lambda p: f"{p.principal} {p.decision} it",
    "action.claimed": lambda p: "the approval was used",
    "email.sent": lambda p: f"mail {p.subject!r} went to {', '.join(p.recipients)} by {p.provider}",
    "artifact.created": lambda p: f"{p.node} made {p.name} ({p.media_type}, {p.size} bytes)",
    "contact.upserted": lambda p: f"contact {p.name} learnt from {p.source or 'the user'}",
    "document.imported": lambda p: f"{p.type} {p.title!r} learnt from {p.source or 'the user'}",
    "memory.updated": lambda p: f"memory {p.namespace}/{p.key} is now at version {p.entry_version}",
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
