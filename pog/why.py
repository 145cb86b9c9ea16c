"""Why something is as it is: from any fact back to the root, and forward to what it led to.

Knows: how to walk ``provenance.causes``, and what of the facts on the way a person wants to see. Does not
know: which fact a reference means (``pog.reference``). Only recorded edges are followed; none is inferred
from order, time or equal text. An edge that leads nowhere, and a fact that should have a cause and names
none, are reported as severed; a fact that was taken back is told of. Nothing is scanned: names and forward
edges are looked up (``pog.trace``), so that an explanation costs by its own size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pog.reader import Reader
from pog.reference import Names, digests_of, resolved
from pog.retract import retracted
from pog.trace import Trace
from pog.words import summary
from runloop.errors import NotFoundError
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
    "why",
]

_MAX_HOPS = 5_000
_ROOTS = frozenset(
    {
        "run.started",
        "trigger.set",
        "trigger.removed",
        "trigger.paused",
        "trigger.resumed",
        "run.cancel_requested",
        "run.resumed",
        "contact.upserted",
        "document.imported",
        "policy.changed",
        "grant.given",
        "model.reserved",
        "grant.revoked",
        "daemon.started",
        "daemon.stopped",
        "agent.transition",
        "agent.quarantined",
        "agent.released",
        "agent.stopped",
        "agent.installed",
        "agent.removed",
        "agent.index_seen",
        "trust.changed",
        "mcp.server.added",
        "mcp.server.removed",
        "mcp.tools.seen",
        "mcp.tools.approved",
        "mcp.tool.suspended",
        "face.exposed",
        "face.token.issued",
        "face.token.revoked",
        "token.issued",
        "token.revoked",
        "calendar.upserted",
        "source.retracted",
        "source.restored",
        "ledger.rekeyed",
        "ledger.restored",
    }
)
"""Kinds that may stand at the beginning: a person, the clock of the host, or the host itself is the cause."""


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
        target, also = resolved(names, ref)
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
        target, also = resolved(names, ref)
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


@contextmanager
def _followed(reader: Reader, trace: Trace | None) -> Iterator[Names]:
    with ExitStack() as stack:
        if trace is None:
            folder = stack.enter_context(TemporaryDirectory(prefix="runloop-trace-"))
            trace = stack.enter_context(Trace.open(Path(folder) / "trace.db", reader))
        trace.catch_up()
        yield Names(reader, trace)


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
        summary=summary(event),
        causes=stamp.causes,
        digests=digests_of(event),
        node=stamp.node or getattr(event.payload, "node", None),
        attempt=stamp.attempt or getattr(event.payload, "attempt", None),
        agent=stamp.agent,
        token=stamp.token,
        msg_id=stamp.msg_id or getattr(event.payload, "msg_id", None),
        label=stamp.label,
    )


def _grants(names: Names, hops: Iterable[Hop]) -> tuple[tuple[Grant, ...], list[Severed]]:
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
