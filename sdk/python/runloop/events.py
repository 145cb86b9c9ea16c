"""Event kinds: one frozen, closed payload type each. The ledger refuses everything else.

An event is an immutable fact in the past tense. This module knows what a fact looks like; how facts are
chained and stored is ``pog``'s matter, who may state them is the daemon's. Payloads are validated with
unknown fields refused, so a kind can only change by a new version and a one-step upcast.

Conventions: every ``*_ms`` is integer milliseconds, every ``*_micro_usd`` integer millionths of a US dollar,
every ``*_digest`` and every blob reference 64 lower-case hex characters of BLAKE3. A field named ``*_blob``
names bytes stored beside the event, in the same transaction (``pog`` table ``blobs``). ``call`` counts the
host calls of one attempt from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from runloop.errors import UsageError
from runloop.spelling import did_you_mean

__all__ = [
    "KINDS",
    "UPCASTS",
    "ActionClaimed",
    "ActionDecided",
    "ActionRequested",
    "AgentIndexSeen",
    "AgentInstalled",
    "AgentPin",
    "AgentQuarantined",
    "AgentReleased",
    "AgentRemoved",
    "AgentStopped",
    "AgentTransition",
    "ArtifactCreated",
    "CalendarUpserted",
    "CapAudit",
    "ConsumerAdvanced",
    "ConsumerRemoved",
    "ContactUpserted",
    "DaemonStarted",
    "DaemonStopped",
    "DocumentImported",
    "Draft",
    "EmailSent",
    "Event",
    "FaceExposed",
    "FaceTokenIssued",
    "FaceTokenRevoked",
    "GrantGiven",
    "GrantRevoked",
    "GuestError",
    "HostcallAdmitted",
    "HostcallDelivered",
    "LedgerRekeyed",
    "LedgerRestored",
    "McpServerAdded",
    "McpServerRemoved",
    "McpToolSuspended",
    "McpToolsApproved",
    "McpToolsSeen",
    "MemoryForgotten",
    "MemoryUpdated",
    "MessagePosted",
    "MessageSent",
    "ModelCalled",
    "ModelReserved",
    "NodeCancelled",
    "NodeExpanded",
    "NodeFinished",
    "NodeGathered",
    "NodeScheduled",
    "NodeSkipped",
    "Payload",
    "PolicyChanged",
    "PromiseCreated",
    "PromiseResolved",
    "PromiseTimedOut",
    "Provenance",
    "QuotaExceeded",
    "QuotaWarned",
    "RunCancelRequested",
    "RunFinished",
    "RunFork",
    "RunParent",
    "RunResumed",
    "RunStarted",
    "SecretRemoved",
    "SecretSet",
    "SecretUsed",
    "SourceRestored",
    "SourceRetracted",
    "TimerFired",
    "TimerSet",
    "TokenIssued",
    "TokenRevoked",
    "ToolCalled",
    "TopicPublished",
    "TriggerFired",
    "TriggerMissed",
    "TriggerPaused",
    "TriggerRemoved",
    "TriggerResumed",
    "TriggerSet",
    "TrustChanged",
    "decode_payload",
    "encode_payload",
]


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every event payload. Subclasses set ``kind`` and, when it changes, ``version``."""

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a fact came from; stamped by the host at write time, never inferred later."""

    causes: tuple[int, ...] = ()
    """Ledger ids of the events without which this one would not exist."""
    node: str | None = None
    attempt: int | None = None
    agent: str | None = None
    bundle: str | None = None
    """Digest of the agent's bundle."""
    token: str | None = None
    """Revocation id of the capability token that was checked."""
    call: int | None = None
    msg_id: int | None = None
    label: str | None = None
    """Trust label of the content: ``user``, ``import:<kind>``, ``agent:<name>``, ``model:<provider>``."""
    origin: str | None = None
    """File of the user's that the content was read from, as an absolute path; only for imports."""


class AgentPin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly which agent serves a node: part of the run, so that a replay can insist on it."""

    name: str
    version: str
    variant: str
    bundle_digest: str
    component_digest: str
    """BLAKE3 of the WebAssembly component that executes: the shared runner of a language's agents."""
    language: str


class RunParent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The attempt that this run serves: a node of another run uses this run's opening."""

    run: str
    node: str
    attempt: int
    root: str
    """The run that nobody nested: budgets, the trace and a sealed file are the whole tree's."""


class RunFork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run branched off another, and what was changed."""

    run: str
    """The run it repeats up to there, and then no more."""
    at: list[str]
    """Nodes that are tried anew, and all that comes of them; what is not below them hears the record alone.
    Empty: nothing is tried anew but what comes of the changes."""
    call: int | None
    """Host call of that one node before which it hears the record alone; None: the node's beginning."""
    changes: dict[str, Any]
    """``set`` {param: value}, ``model`` (str), ``agents`` {node: reference}, ``deny`` [capability]."""
    answers: Literal["recorded", "live"]
    """``recorded``: a call the record knows hears the record, others go to the gate. ``live``: tried anew is
    asked anew."""


class GuestError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an attempt failed."""

    code: str
    message: str
    retryable: bool = False


# --- the daemon -----------------------------------------------------------------------------------


class DaemonStarted(Payload, frozen=True, kw_only=True):
    """A daemon opened this ledger for writing."""

    kind: ClassVar[str] = "daemon.started"
    build: str
    pid: int
    recovered_runs: int = 0


class DaemonStopped(Payload, frozen=True, kw_only=True):
    """A daemon closed this ledger in good order."""

    kind: ClassVar[str] = "daemon.stopped"
    reason: str


class LedgerRekeyed(Payload, frozen=True, kw_only=True):
    """Another key signs the heads from here on, and vouches for those of the key before it up to ``last``."""

    kind: ClassVar[str] = "ledger.rekeyed"
    before: str
    """Public half of the earlier key, in hex."""
    after: str
    last: int
    """The event before this one: the last that a head of the earlier key is believed of."""
    last_hash: str
    vouched: str
    """Signature of the new key over both keys and the last event (``pog.rekey``)."""
    handed: str | None = None
    """The earlier key's over the same; None where it was not there any more."""
    principal: str


class LedgerRestored(Payload, frozen=True, kw_only=True):
    """A person put a backup in the ledger's place. Stated in the restored ledger, before it is in place."""

    kind: ClassVar[str] = "ledger.restored"
    source: Literal["backup", "salvage"]
    """``salvage``: what could be read of a damaged file."""
    manifest_digest: str
    """Digest of the backup's manifest."""
    head_id: int
    """Newest event of the backup."""
    head_hash: str
    made_ms: int
    """When the backup was made."""
    lost_from: int | None
    """First event that the ledger before it had, or is known to have had, and this one has not."""
    lost_to: int | None
    """Last one that is known of; what followed it, if anything did, nobody can tell."""
    known: bool
    """Whether the ledger before it could be read to its end: only then are the numbers all there is."""
    blobs_missing: list[str]
    """Digests that earlier events name and whose bytes are lost; from here on that is known."""
    aside: str | None
    """Folder, beside the ledger, that keeps the files before it; None where there were none."""
    principal: str


# --- runs -----------------------------------------------------------------------------------------


class RunStarted(Payload, frozen=True, kw_only=True):
    """A run exists. Everything that decides its course, apart from what is recorded later, is in here."""

    kind: ClassVar[str] = "run.started"
    version: ClassVar[int] = 2
    opening: str
    definition: dict[str, Any]
    """Normalised definition as ``openings.definition.Opening.to_json`` writes it, with every opening that it
    nests."""
    definition_digest: str
    params: dict[str, Any]
    agents: dict[str, AgentPin]
    """Node id -> pin; of a node in a nested opening, ``<opening>/<node id>``."""
    engine: dict[str, Any]
    """``logic`` (int), ``sandbox`` (int), ``wasmtime`` (str): versions a replay must honour."""
    policy: dict[str, Any]
    """Effective limits: ``confirm_external``, ``budget_micro_usd``, ``budget_tokens``, ``timeout_ms``."""
    principal: str
    """Who asked: ``operator:<uid>`` or ``schedule:<name>``."""
    origin: dict[str, Any]
    """``via`` (str), ``prompt`` (str or null), ``interactive`` (bool), ``source_path`` (str or null)."""
    parent: RunParent | None = None
    """Set for the run of a nested opening."""
    fork: RunFork | None = None
    """Set for a run that branched off another."""
    lineage: str | None = None
    """The run whose id guests see and waits are drawn from, where it is not this one: that of the run it was
    forked from. So a fork that changes nothing is the same run to everybody in it."""


class RunResumed(Payload, frozen=True, kw_only=True):
    """A daemon took the run up again after a stop or a crash."""

    kind: ClassVar[str] = "run.resumed"
    reason: str


class RunCancelRequested(Payload, frozen=True, kw_only=True):
    """Somebody asked for the run to end."""

    kind: ClassVar[str] = "run.cancel_requested"
    principal: str
    reason: str


class RunFinished(Payload, frozen=True, kw_only=True):
    """The run ended, for good."""

    kind: ClassVar[str] = "run.finished"
    outcome: Literal["succeeded", "failed", "cancelled"]
    clause: str | None
    """The success clause that held, as text."""
    outputs: dict[str, str]
    """``node.port`` -> digest of its values, for every port of every succeeded node."""
    output_digest: str
    error: GuestError | None = None


class NodeScheduled(Payload, frozen=True, kw_only=True):
    """The engine decided that this attempt starts."""

    kind: ClassVar[str] = "node.scheduled"
    node: str
    attempt: int
    """Counts from 1."""
    key: str
    """Idempotency key of the attempt."""
    input_digest: str
    input_blob: str
    """Canonical JSON of ``{ports, with}`` as the engine assembled it."""


class NodeFinished(Payload, frozen=True, kw_only=True):
    """An attempt ended by itself, in success or failure."""

    kind: ClassVar[str] = "node.finished"
    node: str
    attempt: int
    status: Literal["succeeded", "failed", "timed_out"]
    output_digest: str | None = None
    output: dict[str, Any] | None = None
    """``{ports: {name: [value]}, artifacts: [digest]}``; in the event because the engine decides from it."""
    error: GuestError | None = None
    fuel: int = 0
    """Fuel the guest burnt: equal in every replay."""
    calls: int = 0


class NodeSkipped(Payload, frozen=True, kw_only=True):
    """A guard was false, or a required input can never arrive."""

    kind: ClassVar[str] = "node.skipped"
    node: str
    reason: str


class NodeCancelled(Payload, frozen=True, kw_only=True):
    """The run ended before this node did."""

    kind: ClassVar[str] = "node.cancelled"
    node: str
    attempt: int | None = None
    reason: str = ""


class NodeExpanded(Payload, frozen=True, kw_only=True):
    """A node that maps over a list knows its items. Each is served like a node called ``<node>[<index>]``."""

    kind: ClassVar[str] = "node.expanded"
    node: str
    items: int
    items_digest: str
    """Of the list."""


class NodeGathered(Payload, frozen=True, kw_only=True):
    """Every item of a mapped node came to an end, and with them the node. Its outputs are theirs in order."""

    kind: ClassVar[str] = "node.gathered"
    node: str
    status: Literal["succeeded", "failed"]
    items: int
    failed: int
    output_digest: str | None
    """Of ``{port: [value…]}`` over the items that succeeded; None where the node failed."""
    error: GuestError | None = None


class TimerSet(Payload, frozen=True, kw_only=True):
    """The engine asked to be woken."""

    kind: ClassVar[str] = "timer.set"
    timer: str
    after_ms: int
    due_ms: int


class TimerFired(Payload, frozen=True, kw_only=True):
    """The time asked for has come."""

    kind: ClassVar[str] = "timer.fired"
    timer: str


class MessageSent(Payload, frozen=True, kw_only=True):
    """A frame crossed the bus on behalf of a run. Stated before the frame is published."""

    kind: ClassVar[str] = "message.sent"
    sender: str
    receiver: str
    topic: str
    type: str
    schema_id: int
    msg_id: int
    size: int
    """Bytes of the whole frame: header and body."""
    body_digest: str
    node: str | None = None
    attempt: int | None = None


class MessagePosted(Payload, frozen=True, kw_only=True):
    """An agent said something to others of its run. Stated before anybody hears it, and heard in the order of
    the ledger."""

    kind: ClassVar[str] = "message.posted"
    node: str
    """Who said it; of a mapped node, its item."""
    attempt: int
    message: str
    """``msg_`` and 16 hex digits, drawn from run, node, attempt and call."""
    to: str
    """``node/<id>``, one node's mailbox, or ``talk/<name>``, everybody who listens there."""
    act: str
    """The speech act, one of ``runloop.speech.ACTS``."""
    conversation: str
    """Message that began it."""
    in_reply_to: str | None
    reply_by_ms: int | None
    """Unix milliseconds after which no answer counts."""
    content_digest: str
    content_blob: str
    """Canonical JSON."""
    size: int


class TopicPublished(Payload, frozen=True, kw_only=True):
    """A frame was published on a durable topic. Stated before anybody is told of it."""

    kind: ClassVar[str] = "topic.published"
    topic: str
    type: str
    schema_id: int
    publisher: str
    """Label of the principal that published it, as the daemon stamped it."""
    instance: str
    """32 hex digits: one program of that principal, over all its sessions. Not secret, and opens nothing."""
    trace_id: str
    """32 hex digits."""
    msg_id: str
    """16 hex digits: a u64 does not fit a JSON number. With ``instance`` and ``trace_id`` stated once."""
    size: int
    """Bytes of the body."""
    body_blob: str
    """The body, byte for byte as it was published."""


class ConsumerAdvanced(Payload, frozen=True, kw_only=True):
    """A durable consumer exists, and has acknowledged everything up to a position. Stated now and then, never
    for every acknowledgement: what came after the last statement is delivered again after a crash."""

    kind: ClassVar[str] = "consumer.advanced"
    consumer: str
    owner: str
    """Label of the principal whose consumer it is; two owners may use one name."""
    pattern: str
    position: int
    """Ledger id: no event up to here will be delivered to it again."""


class ConsumerRemoved(Payload, frozen=True, kw_only=True):
    """Its owner needs a durable consumer no more."""

    kind: ClassVar[str] = "consumer.removed"
    consumer: str
    owner: str


# --- what starts runs by itself ----------------------------------------------------------------------


class TriggerSet(Payload, frozen=True, kw_only=True):
    """From now on an opening is run whenever something happens. A later one of the same name replaces it."""

    kind: ClassVar[str] = "trigger.set"
    trigger: str
    """``[a-z][a-z0-9_]{0,63}``."""
    opening: str
    source: str
    """Text of the opening, as it was when it was set: a file changed later changes nothing here."""
    source_path: str | None
    agents_dir: str | None
    params: dict[str, Any]
    cron: str | None
    """Five fields, or six with seconds first; or None."""
    zone: str | None
    """IANA name of the time zone that ``cron`` is read in."""
    watch: dict[str, Any] | None
    """``paths`` [absolute], ``patterns`` [glob], ``settle_ms``; or None."""
    missed: Literal["skip", "once"]
    """What becomes of times that passed while nobody could act: only reported, or made up for by one run."""
    overlap: Literal["skip", "parallel"]
    """Whether it fires while a run it started goes on."""
    principal: str
    """Who set it. What it starts runs as ``schedule:<trigger>``, which may decide nothing."""
    openings: dict[str, str] = {}
    """Texts of the openings nested in it at any depth, by name; the shipped ones need not be among them."""


class TriggerRemoved(Payload, frozen=True, kw_only=True):
    """It starts nothing any more."""

    kind: ClassVar[str] = "trigger.removed"
    trigger: str
    principal: str


class TriggerPaused(Payload, frozen=True, kw_only=True):
    """It starts nothing until somebody says otherwise. What falls due meanwhile is reported then."""

    kind: ClassVar[str] = "trigger.paused"
    trigger: str
    principal: str


class TriggerResumed(Payload, frozen=True, kw_only=True):
    """It starts runs again."""

    kind: ClassVar[str] = "trigger.resumed"
    trigger: str
    principal: str


class TriggerFired(Payload, frozen=True, kw_only=True):
    """What it waits for happened. Stated before the run is started, once for each due time."""

    kind: ClassVar[str] = "trigger.fired"
    trigger: str
    due_ms: int
    starts: str
    """The run it starts; recovery starts it when the daemon died in between."""
    cause: dict[str, Any]
    """``{cron}``, ``{paths: [changed…], count, hop}`` or ``{by}``: the schedule, the files that changed, or
    who asked for a run now."""


class TriggerMissed(Payload, frozen=True, kw_only=True):
    """It should have started a run, and did not."""

    kind: ClassVar[str] = "trigger.missed"
    trigger: str
    first_due_ms: int
    last_due_ms: int
    times: int
    reason: str


# --- host calls and effects -----------------------------------------------------------------------


class HostcallAdmitted(Payload, frozen=True, kw_only=True):
    """First mark of an effect: every check passed and the provider is about to be asked."""

    kind: ClassVar[str] = "hostcall.admitted"
    version: ClassVar[int] = 2
    node: str
    attempt: int
    call: int
    op: str
    effect: str
    key: str
    """Idempotency key: the same effect of a later attempt has the same key."""
    args_digest: str
    args_blob: str
    request_bytes: int
    fuel: int
    reserved_micro_usd: int = 0
    """Money held for it: what it is booked at when nobody can tell what became of it."""
    reserved_for: str = ""
    """``provider:model`` that the reservation is for; empty where nothing was reserved."""
    price_version: str = ""
    """Price list of the reservation."""


class HostcallDelivered(Payload, frozen=True, kw_only=True):
    """Second mark, and the only one of a call without effect: this is what the guest is about to see."""

    kind: ClassVar[str] = "hostcall.delivered"
    version: ClassVar[int] = 2
    node: str
    attempt: int
    call: int
    op: str
    effect: str
    args_digest: str
    args_blob: str
    ok: bool
    result_digest: str
    result_blob: str
    """Canonical JSON of the result, or of ``{code, message, hint, retryable}`` when not ``ok``."""
    request_bytes: int
    response_bytes: int
    fuel: int
    """Fuel burnt when the guest made the call: equal in every replay."""
    recorded_in: str | None = None
    """The run whose record gave this answer, in a fork; None: it was asked for."""


class ModelCalled(Payload, frozen=True, kw_only=True):
    """A model, or the offline rules provider standing in for one, answered."""

    kind: ClassVar[str] = "model.called"
    version: ClassVar[int] = 3
    node: str
    attempt: int
    call: int
    provider: str
    model: str
    generated: bool
    """False when no language model wrote the text (the rules provider)."""
    request_digest: str
    answer_digest: str
    input_tokens: int
    output_tokens: int
    estimated: bool
    """True when the provider did not report usage."""
    reserved_micro_usd: int
    cost_micro_usd: int
    price_version: str
    finish: str
    route: str = ""
    """Why this model was asked, in words; empty in records of before."""
    source: str = "asked"
    """``asked``, ``cache`` (an equal request was answered before), ``cassette``, or ``check`` (somebody
    looked whether it answers)."""
    tool_calls: int = 0
    """Functions it asked for."""
    saved_micro_usd: int = 0
    """What the answer had cost when it was first given, where it came from the cache or a cassette."""


class ModelReserved(Payload, frozen=True, kw_only=True):
    """Money was set aside for a call of no run, before it was made: nothing else says that it was begun.

    The ``model.called`` that books it names this event among its causes. Where none does, the daemon died
    meanwhile; the next one books all of it.
    """

    kind: ClassVar[str] = "model.reserved"
    provider: str
    model: str
    request_digest: str
    reserved_micro_usd: int
    price_version: str
    route: str
    source: str
    """As that of ``model.called``."""


class ActionRequested(Payload, frozen=True, kw_only=True):
    """An external effect waits for a person."""

    kind: ClassVar[str] = "action.requested"
    approval: str
    node: str
    attempt: int
    call: int
    op: str
    effect: str
    key: str
    args_digest: str
    action: dict[str, Any]
    """Canonical action: ``kind``, ``summary``, ``recipients``, ``resource``, ``agent``, ``bundle``,
    ``amount_micro_usd``."""
    action_digest: str
    """BLAKE3 that binds the decision: over the action and the digest of the exact content."""
    content_blob: str
    """The exact bytes that will be executed, for mail the RFC 5322 message."""
    content_type: str
    expires_ms: int


class ActionDecided(Payload, frozen=True, kw_only=True):
    """A person, or the clock, answered."""

    kind: ClassVar[str] = "action.decided"
    approval: str
    node: str
    decision: Literal["approved", "denied", "expired", "undone", "voided"]
    principal: str
    action_digest: str
    note: str = ""
    dispatch_after_ms: int = 0
    """End of the undo window, as unix milliseconds; 0 where none applies."""


class ActionClaimed(Payload, frozen=True, kw_only=True):
    """The one use of an approval was taken; from here it can only be dispatched."""

    kind: ClassVar[str] = "action.claimed"
    approval: str
    action_digest: str


class EmailSent(Payload, frozen=True, kw_only=True):
    """A message left for its recipients (or for the outbox folder that stands for them)."""

    kind: ClassVar[str] = "email.sent"
    approval: str
    provider: str
    message_id: str
    recipients: list[str]
    subject: str
    content_blob: str
    location: str


class ToolCalled(Payload, frozen=True, kw_only=True):
    """A tool with an effect was begun, and this is how it ended. A tool that only reads leaves none."""

    kind: ClassVar[str] = "tool.called"
    node: str
    attempt: int
    call: int
    agent: str
    tool: str
    """Qualified name."""
    origin: Literal["bundle", "host", "mcp"]
    effect: str
    resource: str
    """What was touched, in canonical form; never a secret."""
    definition: str
    """Digest of the definition that was called."""
    key: str
    """Idempotency key of the effect."""
    outcome: Literal["done", "absent", "unknown"]
    code: str | None = None
    """How it failed; None: it did not."""
    approval: str | None = None
    """The person's word it was done under."""
    grant: str | None = None
    """The standing grant it was done under, where no person was asked this time."""


class GrantGiven(Payload, frozen=True, kw_only=True):
    """A person allowed one tool on one resource for good."""

    kind: ClassVar[str] = "grant.given"
    version: ClassVar[int] = 2
    grant: str
    agent: str
    bundle: str
    """Digest of the bundle it is for: a new version of the agent asks again."""
    tool: str
    definition: str
    effect: str
    resource: str
    approval: str
    """The question it was given with."""
    principal: str
    asked_by: str = ""
    """The program outside whose runs it is for (``face:<client>``); empty: for those of the user."""


class GrantRevoked(Payload, frozen=True, kw_only=True):
    """A person took a standing grant back."""

    kind: ClassVar[str] = "grant.revoked"
    grant: str
    principal: str
    reason: str = ""


class ArtifactCreated(Payload, frozen=True, kw_only=True):
    """A file that a run produced."""

    kind: ClassVar[str] = "artifact.created"
    name: str
    node: str
    port: str | None
    media_type: str
    blob: str
    size: int


# --- knowledge ------------------------------------------------------------------------------------


class ContactUpserted(Payload, frozen=True, kw_only=True):
    """What is known of a person, complete: a later event of the same id replaces it."""

    kind: ClassVar[str] = "contact.upserted"
    contact: str
    name: str
    emails: list[str] = []
    phones: list[str] = []
    org: str = ""
    title: str = ""
    note: str = ""
    nicknames: list[str] = []
    source: str = ""


class DocumentImported(Payload, frozen=True, kw_only=True):
    """A note, a mail, or a record of a table that the user brought in."""

    kind: ClassVar[str] = "document.imported"
    document: str
    """Stable id: the digest of source kind and source key, so that a re-import changes nothing twice."""
    type: Literal["note", "mail", "record"]
    """``record``: a row of a table or an object of JSON lines, as ``field: value`` lines."""
    title: str
    text: str
    content_digest: str
    people: list[str] = []
    """E-mail addresses of sender and receivers."""
    written_ms: int | None = None
    source: str = ""


class CalendarUpserted(Payload, frozen=True, kw_only=True):
    """An entry of a calendar, complete: a later event of the same id replaces it."""

    kind: ClassVar[str] = "calendar.upserted"
    entry: str
    """Stable id: the digest of UID and RECURRENCE-ID, so that a re-import changes nothing twice."""
    type: Literal["event", "todo"]
    uid: str
    recurrence: str = ""
    """Which instance of a series this one replaces, as its start was written; empty: the whole series."""
    sequence: int = 0
    """Revision: an older one never replaces a newer."""
    status: str = ""
    """confirmed, tentative, cancelled, needs-action, in-process, completed; empty: not said."""
    title: str = ""
    text: str = ""
    location: str = ""
    start: str = ""
    """ISO 8601: a date for a whole day; with an offset unless the source left the zone open (floating)."""
    end: str = ""
    """Of a todo: when it is due."""
    start_ms: int | None = None
    """Of the first instance; a floating time and a date count as UTC."""
    end_ms: int | None = None
    all_day: bool = False
    timezone: str = ""
    rule: str = ""
    """RRULE, RDATE and EXDATE lines as they were written; nothing is expanded."""
    people: list[str] = []
    """E-mail addresses of organiser and attendees."""
    source: str = ""


class MemoryUpdated(Payload, frozen=True, kw_only=True):
    """An agent's durable memory changed."""

    kind: ClassVar[str] = "memory.updated"
    namespace: str
    key: str
    value: Any
    entry_version: int


class MemoryForgotten(Payload, frozen=True, kw_only=True):
    """A key of an agent's memory was deleted; its versions go on counting."""

    kind: ClassVar[str] = "memory.forgotten"
    namespace: str
    key: str
    entry_version: int


class SourceRetracted(Payload, frozen=True, kw_only=True):
    """A person took a fact back: the views are as if it was never learnt. The fact stays in the ledger."""

    kind: ClassVar[str] = "source.retracted"
    source: int
    """Ledger id of the fact that was named."""
    facts: list[int]
    """Every fact that no longer counts: the source, and with ``cascade`` the knowledge that came of it."""
    cascade: bool
    runs: list[str]
    """Runs that had heard of it and were under way: they change nothing any more."""
    approvals: list[str]
    """Questions that came of it and were open: they are voided."""
    reason: str
    principal: str


class SourceRestored(Payload, frozen=True, kw_only=True):
    """A person took a retraction back: its facts count again. Voided questions stay void."""

    kind: ClassVar[str] = "source.restored"
    retraction: int
    """Ledger id of the ``source.retracted``."""
    reason: str
    principal: str


# --- promises -------------------------------------------------------------------------------------


class PromiseCreated(Payload, frozen=True, kw_only=True):
    """Somebody will say something later, once. From here it can be resolved or time out, not both."""

    kind: ClassVar[str] = "promise.created"
    promise: str
    node: str
    attempt: int
    call: int
    agent: str
    resolver: Literal["run", "operator"]
    """Who may resolve it: agents of the same run and the operator, or the operator alone."""
    question: str = ""
    """What a person is asked; foreign text."""
    choices: list[str] = []
    """The only values that are taken; empty: any JSON value."""
    expires_ms: int


class PromiseResolved(Payload, frozen=True, kw_only=True):
    """The one answer."""

    kind: ClassVar[str] = "promise.resolved"
    promise: str
    value: Any
    principal: str
    """``operator:<uid>`` or ``agent:<name>``."""


class PromiseTimedOut(Payload, frozen=True, kw_only=True):
    """Nobody answered in time, or the run that asked is over."""

    kind: ClassVar[str] = "promise.timed_out"
    promise: str
    reason: Literal["deadline", "run_over"]


# --- authority ------------------------------------------------------------------------------------


class TokenIssued(Payload, frozen=True, kw_only=True):
    """A capability token was minted or narrowed."""

    kind: ClassVar[str] = "token.issued"
    token: str
    """Revocation id of its newest block."""
    parent: str | None
    holder: str
    grants: dict[str, Any]
    expires_ms: int


class TokenRevoked(Payload, frozen=True, kw_only=True):
    """A token and everything narrowed from it are void."""

    kind: ClassVar[str] = "token.revoked"
    token: str
    reason: str


class CapAudit(Payload, frozen=True, kw_only=True):
    """A capability check was answered."""

    kind: ClassVar[str] = "cap.audit"
    agent: str
    capability: str
    op: str
    target: str
    args_digest: str
    decision: Literal["allowed", "denied", "empty"]
    reason: str
    node: str | None = None
    attempt: int | None = None
    call: int | None = None


class PolicyChanged(Payload, frozen=True, kw_only=True):
    """An operator changed what an agent may do."""

    kind: ClassVar[str] = "policy.changed"
    agent: str
    change: Literal["grant", "revoke", "shrink"]
    capability: str
    before: dict[str, Any]
    after: dict[str, Any]
    principal: str


class AgentTransition(Payload, frozen=True, kw_only=True):
    """A guest instance moved along the lifecycle table (spec/capabilities.md); stated before it shows."""

    kind: ClassVar[str] = "agent.transition"
    agent: str
    instance: str
    before: str
    after: str
    trigger: str
    reason: str = ""
    node: str | None = None
    attempt: int | None = None


class AgentQuarantined(Payload, frozen=True, kw_only=True):
    """An agent may not run any more: it failed too often, or the operator said so."""

    kind: ClassVar[str] = "agent.quarantined"
    version: ClassVar[int] = 2
    name: str
    bundle: str | None
    """Digest of the bundle that failed; the quarantine is of the name, whatever bundle answers to it."""
    reason: str
    evidence: list[int]
    """Ledger ids of the failures that were too many; empty when the operator did it."""
    by: Literal["breaker", "operator"]
    principal: str
    tree: str | None = None
    """The outermost run in which a tripwire of the gate tripped: while the agent is held, no agent of that
    run or of those nested in it sends anything outside."""


class AgentReleased(Payload, frozen=True, kw_only=True):
    """The operator let a quarantined agent run again; its failures are counted anew."""

    kind: ClassVar[str] = "agent.released"
    name: str
    reason: str
    principal: str


class AgentStopped(Payload, frozen=True, kw_only=True):
    """The operator ended the process of an agent at work; stated before it is ended."""

    kind: ClassVar[str] = "agent.stopped"
    name: str
    how: Literal["killed", "restarted"]
    """``killed``: the attempt fails with ``guest.killed``, and the opening's retry decides what follows.
    ``restarted``: it goes on in a fresh process, from its record."""
    reason: str
    principal: str
    node: str
    """The node whose attempt it is, or on whose behalf the agent served a tool."""
    attempt: int


class AgentInstalled(Payload, frozen=True, kw_only=True):
    """From here on new runs are served by this bundle. Stating it is the commit of every install."""

    kind: ClassVar[str] = "agent.installed"
    name: str
    variant: str
    agent_version: str
    bundle: str
    """Digest of the bundle: where its bytes are kept, and what they must add up to at every read."""
    archive_sha256: str
    """SHA-256 of ``bundle.tar``, for foreign tools: what the signature names."""
    attestation_blob: str
    """The attestations it was judged by, as they lay in the bundle file."""
    publisher: str
    """Whose anchor vouched for it; empty for a bundle of this home's own development key."""
    key: str
    """Id of the key that signed it."""
    dev: bool
    """Signed with the development key, and installed because ``--dev-key`` said so."""
    how: Literal["install", "upgrade", "downgrade", "rollback", "swap"]
    """``swap``: the author's next build, which may do no more than the one a person said yes to."""
    replaces: str | None
    """Digest of the bundle that served until now."""
    caps_digest: str
    """Of the capability difference as it was shown to the person."""
    approval: str | None
    """The person's yes; None for a rollback that grants nothing new."""
    principal: str
    """Who asked for it: ``operator:<uid>``."""


class AgentRemoved(Payload, frozen=True, kw_only=True):
    """New runs are not served by this agent any more. Runs under way keep the bytes they began with."""

    kind: ClassVar[str] = "agent.removed"
    name: str
    variant: str
    agent_version: str
    bundle: str
    released: bool
    """True: the name is free for another publisher; else it stays with the one who had it."""
    principal: str


class AgentIndexSeen(Payload, frozen=True, kw_only=True):
    """An index of agents was read and judged good; an older one is refused from here on."""

    kind: ClassVar[str] = "agent.index_seen"
    publisher: str
    serial: int
    expires: str
    index_digest: str


class TrustChanged(Payload, frozen=True, kw_only=True):
    """The operator changed who may publish agents here. Stated before the trust file is written."""

    kind: ClassVar[str] = "trust.changed"
    change: Literal["add", "remove", "revoke"]
    subject: str
    """The publisher for ``add`` and ``remove``, the key id or bundle digest for ``revoke``."""
    before: dict[str, Any]
    after: dict[str, Any]
    """The entry as the file has it; empty where there is none."""
    reason: str
    approval: str | None
    """The person's yes; None where trust only shrank."""
    principal: str


class SecretSet(Payload, frozen=True, kw_only=True):
    """The operator set a secret, or where agents may have it sent. Stated before it holds; never a value."""

    kind: ClassVar[str] = "secret.set"
    name: str
    """``runloop/<scope>/<name>``."""
    store: str
    """The place that keeps it: ``keyring``, ``age``. Empty: only ``destinations`` changed."""
    destinations: list[str]
    """Where agents may have it sent: ``host``, ``host:port``, ``mcp:<server>``, ``program:<name>``. Empty:
    nowhere; what the configuration uses it for is the operator's own matter."""
    principal: str


class SecretRemoved(Payload, frozen=True, kw_only=True):
    """The operator removed a secret. Stated before it is gone."""

    kind: ClassVar[str] = "secret.removed"
    name: str
    principal: str


class SecretUsed(Payload, frozen=True, kw_only=True):
    """A secret left its place for somebody: who, and where it went. Of the host's own uses, the first of an
    hour; of agents, each."""

    kind: ClassVar[str] = "secret.used"
    name: str
    """Of the secret, or ``$VARIABLE``."""
    by: str
    """``models.<provider>``, ``mail``, ``mcp.<server>``, ``agent:<name>``."""
    to: str


class McpServerAdded(Payload, frozen=True, kw_only=True):
    """The operator let a foreign MCP server be started, or connected to. That approves none of its tools."""

    kind: ClassVar[str] = "mcp.server.added"
    server: str
    spec: dict[str, Any]
    """Its program or place, and what it may reach. Secrets by name."""
    spec_digest: str
    approval: str
    principal: str


class McpServerRemoved(Payload, frozen=True, kw_only=True):
    """A foreign MCP server is gone, and every approval of its tools with it."""

    kind: ClassVar[str] = "mcp.server.removed"
    server: str
    reason: str
    principal: str


class McpToolsSeen(Payload, frozen=True, kw_only=True):
    """What a foreign MCP server said it offers: foreign text from end to end, and nothing approved by it."""

    kind: ClassVar[str] = "mcp.tools.seen"
    server: str
    protocol: str
    identity: str
    """What it calls itself."""
    tools: dict[str, str]
    """Name -> digest of the definition."""
    refused: list[str]
    """Tools that are not taken, each with the reason."""
    definitions_blob: str
    """JSON object: name -> definition."""


class McpToolsApproved(Payload, frozen=True, kw_only=True):
    """A person saw the definitions of tools of a foreign MCP server and lets them be called as they are."""

    kind: ClassVar[str] = "mcp.tools.approved"
    server: str
    tools: dict[str, str]
    """Name -> digest of the definition that was shown."""
    effect: Literal["read", "write", "send"]
    """What the person takes their calls for; the server's own word on it does not count."""
    definitions_blob: str
    approval: str
    principal: str


class McpToolSuspended(Payload, frozen=True, kw_only=True):
    """A tool of a foreign server may not be called until a person approves it again."""

    kind: ClassVar[str] = "mcp.tool.suspended"
    server: str
    tool: str
    reason: Literal["changed", "operator"]
    before_digest: str
    after_digest: str | None
    """Of the definition it has now; None where it is the same."""
    principal: str


class FaceExposed(Payload, frozen=True, kw_only=True):
    """The operator said what programs outside may reach. Stated before it holds."""

    kind: ClassVar[str] = "face.exposed"
    items: list[str]
    """All of it: ``kb``, ``opening:<name>``, ``tool:<name>``, ``tool:<name>@<agent>``."""
    principal: str


class FaceTokenIssued(Payload, frozen=True, kw_only=True):
    """The operator made a token by which a program outside is known."""

    kind: ClassVar[str] = "face.token.issued"
    name: str
    token_digest: str
    """BLAKE3 of its text, which is kept nowhere."""
    principal: str


class FaceTokenRevoked(Payload, frozen=True, kw_only=True):
    """A token of a program outside is worth nothing any more."""

    kind: ClassVar[str] = "face.token.revoked"
    name: str
    principal: str


class QuotaWarned(Payload, frozen=True, kw_only=True):
    """A soft limit was passed."""

    kind: ClassVar[str] = "quota.warned"
    agent: str
    resource: str
    limit: int
    used: int


class QuotaExceeded(Payload, frozen=True, kw_only=True):
    """A hard limit was reached; the call was refused."""

    kind: ClassVar[str] = "quota.exceeded"
    agent: str
    resource: str
    limit: int
    used: int


KINDS: dict[str, type[Payload]] = {
    payload.kind: payload
    for payload in (
        DaemonStarted,
        DaemonStopped,
        LedgerRekeyed,
        LedgerRestored,
        RunStarted,
        RunResumed,
        RunCancelRequested,
        RunFinished,
        NodeScheduled,
        NodeFinished,
        NodeSkipped,
        NodeCancelled,
        NodeExpanded,
        NodeGathered,
        TimerSet,
        TimerFired,
        MessageSent,
        MessagePosted,
        TopicPublished,
        ConsumerAdvanced,
        ConsumerRemoved,
        TriggerSet,
        TriggerRemoved,
        TriggerPaused,
        TriggerResumed,
        TriggerFired,
        TriggerMissed,
        HostcallAdmitted,
        HostcallDelivered,
        ModelCalled,
        ModelReserved,
        ActionRequested,
        ActionDecided,
        ActionClaimed,
        EmailSent,
        ToolCalled,
        GrantGiven,
        GrantRevoked,
        ArtifactCreated,
        ContactUpserted,
        DocumentImported,
        CalendarUpserted,
        MemoryUpdated,
        MemoryForgotten,
        SourceRetracted,
        SourceRestored,
        PromiseCreated,
        PromiseResolved,
        PromiseTimedOut,
        TokenIssued,
        TokenRevoked,
        CapAudit,
        PolicyChanged,
        AgentTransition,
        AgentQuarantined,
        AgentReleased,
        AgentStopped,
        AgentInstalled,
        AgentRemoved,
        AgentIndexSeen,
        TrustChanged,
        McpServerAdded,
        McpServerRemoved,
        McpToolsSeen,
        McpToolsApproved,
        McpToolSuspended,
        SecretSet,
        SecretRemoved,
        SecretUsed,
        FaceExposed,
        FaceTokenIssued,
        FaceTokenRevoked,
        QuotaWarned,
        QuotaExceeded,
    )
}
"""Every kind there is."""


def _unchanged(fields: dict[str, Any]) -> dict[str, Any]:
    """The next version only adds fields that may be left out."""
    return fields


UPCASTS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("run.started", 1): _unchanged,
    ("hostcall.delivered", 1): _unchanged,
    ("hostcall.admitted", 1): _unchanged,
    ("model.called", 1): _unchanged,
    ("model.called", 2): _unchanged,
    ("grant.given", 1): _unchanged,
    ("agent.quarantined", 1): _unchanged,
}
"""``(kind, version)`` -> converter to the next version: pure, from the fields as that version had them (a
copy it may change) to the fields of the next. Rows are never rewritten. A kind that changes gets a new
version, a step here, and a file in ``tests/histories/formats``."""


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact somebody states, before the ledger gives it an id, a time and a place in the chain."""

    payload: Payload
    actor: str
    """Who states it: ``daemon``, ``operator:<uid>``, ``agent:<name>``."""
    scope: str = "user"
    """``user``, ``system`` or ``agent:<name>``."""
    run: str | None = None
    provenance: Provenance = Provenance()


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact as the ledger holds it."""

    id: int
    """Place in the chain; 1 is the first."""
    ts_ms: int
    actor: str
    kind: str
    scope: str
    run: str | None
    payload: Payload
    provenance: Provenance
    hash: bytes
    prev_hash: bytes

    def to_json(self) -> dict[str, Any]:
        """The event as people and the wire see it: hashes in hex, payload as a JSON object, of the newest
        version whatever version the ledger holds."""
        return {
            "id": self.id,
            "ts_ms": self.ts_ms,
            "actor": self.actor,
            "kind": self.kind,
            "version": self.payload.version,
            "scope": self.scope,
            "run": self.run,
            "payload": encode_payload(self.payload),
            "provenance": msgspec.to_builtins(self.provenance),
            "hash": self.hash.hex(),
            "prev_hash": self.prev_hash.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Event:
        """Inverse of :meth:`to_json`, of any build: without ``version`` it is 1.

        Raises :class:`UsageError` for a kind, version or shape that is not known.
        """
        try:
            return cls(
                id=value["id"],
                ts_ms=value["ts_ms"],
                actor=value["actor"],
                kind=value["kind"],
                scope=value["scope"],
                run=value["run"],
                payload=decode_payload(value["kind"], value["payload"], value.get("version", 1)),
                provenance=msgspec.convert(value["provenance"], Provenance),
                hash=bytes.fromhex(value["hash"]),
                prev_hash=bytes.fromhex(value["prev_hash"]),
            )
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise UsageError(f"not an event: {error}", code="event.shape") from error


def encode_payload(payload: Payload) -> dict[str, Any]:
    """The payload as a JSON object, every field written, in declaration order."""
    built: dict[str, Any] = msgspec.to_builtins(payload)
    return built


def decode_payload(kind: str, value: Any, version: int | None = None) -> Payload:
    """Validate a JSON object as the payload of ``kind``.

    ``version`` is the one it was written as, None for the newest; an older one is upcast, one step at a time.
    Raises :class:`UsageError` for an unknown kind, a newer version, a missing, unknown or mistyped field.
    """
    known = KINDS.get(kind)
    if known is None:
        raise UsageError(
            f"unknown event kind {kind!r}",
            hint=did_you_mean(kind, KINDS, "docs/reference/events.md lists them, such as contact.upserted"),
            code="event.kind",
        )
    if version is not None and version != known.version:
        value = _upcast(known, value, version)
    try:
        return msgspec.convert(value, known)
    except msgspec.ValidationError as error:
        raise UsageError(f"{kind}: {error}", code="event.shape") from error


def _upcast(known: type[Payload], value: Any, version: int) -> Any:
    """A payload of an earlier version as the newest one has it; the value that was given is not changed."""
    if version > known.version:
        raise UsageError(
            f"{known.kind} version {version} is newer than this build knows ({known.version})",
            hint="upgrade runloop",
            code="event.version",
        )
    while version < known.version:
        step = UPCASTS.get((known.kind, version))
        if step is None:
            raise UsageError(
                f"there is no way from version {version} of {known.kind} to {version + 1}",
                code="event.version",
            )
        try:
            value = step(dict(value))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{known.kind} version {version} does not look as it did: {error!r}", code="event.shape"
            ) from error
        version += 1
    return value
