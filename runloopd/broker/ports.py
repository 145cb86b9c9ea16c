"""What the gate asks of the world: one protocol per question, no behaviour.

Knows: the shapes that pass between the gate and its providers, and the promises each side makes. Does not
know: who may ask (the gate), how a provider reaches its server (``broker.models``, ``broker.mail``), or how
facts are stored (``pog``). Twins for tests live in ``runloopd.broker.testing``.

Promises common to all ports: money is integer micro-dollars, times are integer unix milliseconds; failures
are raised as families of :mod:`runloop.errors`, never as foreign exceptions; cancellation is honoured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from runloop.errors import FailedError
from runloop.events import Draft, Event, MemoryForgotten, MemoryUpdated
from runloop.ops import MailSend, ModelComplete

__all__ = [
    "NOBODY",
    "Asker",
    "BlobPort",
    "Budget",
    "Delta",
    "FactPort",
    "JournalPort",
    "KnowledgePort",
    "MailPort",
    "MailReceipt",
    "MemoryEntry",
    "MemoryKey",
    "MemoryPort",
    "MemorySpace",
    "MemoryWrite",
    "ModelAnswer",
    "ModelCallError",
    "ModelPort",
    "Outcome",
    "PreparedMail",
    "ProviderError",
    "Reservation",
    "WantedCall",
]

Outcome = Literal["done", "absent", "unknown"]
"""What became of an effect: it happened, it certainly did not, or nobody can tell."""


class ProviderError(FailedError):
    """A provider tried and failed. ``retryable`` tells whether another attempt of the node may do better."""

    code: ClassVar[str] = "provider.failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        retryable: bool = False,
        outcome: Outcome = "absent",
        **data: Any,
    ) -> None:
        super().__init__(message, hint=hint, code=code, **data)
        self.retryable = retryable
        self.outcome = outcome
        """``absent``: nothing left the machine. ``unknown``: it may have, and the gate asks ``reconcile``."""


class ModelCallError(ProviderError):
    """A model call failed, was cut, or was refused by its server after money may have been spent."""

    code: ClassVar[str] = "model.failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        retryable: bool = False,
        cost_micro_usd: int | None = 0,
        **data: Any,
    ) -> None:
        super().__init__(message, hint=hint, code=code, retryable=retryable, **data)
        self.cost_micro_usd = cost_micro_usd
        """Known cost of the failed call; None: unknown, and the gate books the whole reservation."""


# --- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """Who asks a model, and what the request may hold. What is not said is taken for the worst."""

    agent: str = ""
    bundle: str = ""
    """Digest of its bundle."""
    private: bool = True
    """Whether the request may hold what is the user's own: then ``hybrid`` keeps it on this machine."""


NOBODY = Asker()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """What a completion may cost at most, retries and fall-backs included. Made before a byte is sent."""

    provider: str
    """First choice: a name under ``models.providers``, of a server found here, or ``rules``."""
    model: str
    micro_usd: int
    """Upper bound of money; 0 for local and offline providers."""
    input_tokens: int
    """Upper bound (bytes of the prompt are one)."""
    output_tokens: int
    price_version: str
    route: str = ""
    """Why this model, what it may cost, and what else there is: in words."""

    @property
    def target(self) -> str:
        """What the ``model`` capability is checked against: ``provider:model``."""
        return f"{self.provider}:{self.model}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Bounds of one completion. The broker must not pass any of them, whatever it falls back to."""

    micro_usd: int
    """Money reserved for this call; any route that could cost more is refused (``budget.exceeded``)."""
    tokens: int
    """Input plus output tokens reserved for this call."""
    deadline_ms: int
    """Unix time at which the gate cancels the call."""
    permits: Callable[[str], bool]
    """Whether policy lets this agent use ``provider:model``; asked for every route before it is tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedCall:
    """A function a model asked for: what it wrote, made fit to be handed on, and not believed."""

    id: str
    """``[A-Za-z0-9_-]{1,64}``, unique in its answer."""
    name: str
    """``[A-Za-z0-9_-]{1,64}``; perhaps none that was offered."""
    arguments: dict[str, Any] | None
    """None: what it wrote is no object."""
    malformed: str = ""
    """The beginning of what it wrote instead."""

    def as_json(self) -> dict[str, Any]:
        """``{id, name, arguments}`` or ``{id, name, malformed}``."""
        row: dict[str, Any] = {"id": self.id, "name": self.name}
        return row | (
            {"malformed": self.malformed} if self.arguments is None else {"arguments": self.arguments}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """A finished completion."""

    text: str
    provider: str
    model: str
    generated: bool
    """False when no language model wrote the text (the rules provider)."""
    input_tokens: int
    output_tokens: int
    estimated: bool
    """True when the provider did not report usage."""
    cost_micro_usd: int
    price_version: str
    finish: Literal["stop", "tools", "length", "filter", "other"]
    """``tools``: it waits for what the functions it asked for say."""
    parts: tuple[str, ...] = ()
    """The text as it arrived, for a streamed answer; ``"".join(parts) == text``. Empty: one part."""
    tool_calls: tuple[WantedCall, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Routes that were tried first and failed, as ``provider:model: reason``."""
    route: str = ""
    """Why this model, what it might have cost, and what else there was: in words."""
    source: Literal["asked", "cache", "cassette"] = "asked"
    saved_micro_usd: int = 0
    """What the answer had cost when it was first given; 0 unless it was not asked for now."""


class ModelPort(Protocol):
    """Which model answers, at what price."""

    async def estimate(
        self, request: ModelComplete, permits: Callable[[str], bool], *, asker: Asker = NOBODY
    ) -> Reservation:
        """Choose the route among those ``permits`` allows and bound its cost; sends nothing of the request.

        ``permits("provider:model")`` is policy's word. Raises :class:`RefusedError` with code
        ``model.unpriced`` for a remote model without a price, ``cap.denied`` when no route is permitted,
        ``model.private`` when none may see what the request holds.
        """
        ...

    async def complete(
        self,
        request: ModelComplete,
        *,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
        asker: Asker = NOBODY,
    ) -> ModelAnswer:
        """Ask. ``on_delta`` is called with each piece of text as it arrives; it never raises.

        Raises :class:`ModelCallError` (with what it cost), or :class:`RefusedError` when nothing was sent.
        """
        ...


# --- mail -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedMail:
    """Exactly what will leave: rendered once, shown to the person, dispatched byte for byte."""

    content: bytes
    """The RFC 5322 message. Without a Bcc header."""
    message_id: str
    """With angle brackets; derived from the idempotency key."""
    sender: str
    recipients: tuple[str, ...]
    """The envelope: everybody who will receive it, to + cc + bcc, in that order, without repeats."""
    subject: str
    """Decoded, as the user reads it."""
    resource: str
    """Where it goes: ``outbox:<path>`` or ``smtp:<host>:<port>``."""
    key: str
    """Idempotency key of the effect; names the file in the outbox."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MailReceipt:
    """The message has left."""

    location: str
    """Path of the file in the outbox, or what the server said when it took the message."""
    provider: str
    """``outbox`` or ``smtp``."""


class MailPort(Protocol):
    """How mail leaves."""

    def prepare(self, args: MailSend, *, key: str, now_ms: int, sender: str | None) -> PreparedMail:
        """Render the message. Pure and deterministic: same arguments and configuration, same bytes.

        The gate calls it again with the recorded ``now_ms`` right before the dispatch and refuses when a
        single byte, recipient or the resource differs from what was approved. ``sender`` None: from config.
        Raises :class:`UsageError` for addresses or headers that cannot be written (CR, LF, no recipients).
        """
        ...

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt:
        """Send. Raises :class:`ProviderError`; ``outcome="unknown"`` when the server may have taken it."""
        ...

    async def reconcile(self, prepared: PreparedMail) -> Outcome:
        """Tell whether a dispatch that was begun, perhaps by a daemon that died, happened."""
        ...


# --- knowledge ------------------------------------------------------------------------------------


class MemoryEntry(Protocol):
    """One key of an agent's durable memory. ``version`` 0: it does not exist."""

    @property
    def value(self) -> Any: ...
    @property
    def version(self) -> int: ...
    @property
    def exists(self) -> bool:
        """Whether there is a value: a forgotten key keeps its version."""
        ...

    @property
    def event(self) -> int | None:
        """Ledger id of the event that wrote it."""
        ...

    @property
    def label(self) -> str | None:
        """Trust label: the lowest of what it was made from."""
        ...


class MemoryKey(Protocol):
    """One line of a listing."""

    @property
    def key(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of key and value."""
        ...

    @property
    def event(self) -> int: ...
    @property
    def updated_ms(self) -> int: ...


class MemorySpace(Protocol):
    """What one namespace holds."""

    @property
    def keys(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class MemoryWrite(Protocol):
    """A version of a key, promised to nobody else until ``end``."""

    payload: MemoryUpdated | MemoryForgotten
    """The fact to state."""
    size: int
    """Bytes of key and value."""

    @property
    def before(self) -> MemoryEntry:
        """What it replaces."""
        ...

    @property
    def after(self) -> MemorySpace:
        """What the namespace holds with it."""
        ...

    def end(self) -> None:
        """The fact is stated, or will not be."""
        ...


class MemoryPort(Protocol):
    """What agents remember (``pog.memory.Memory``, off the event loop)."""

    async def get(self, namespace: str, key: str) -> MemoryEntry:
        """The current entry; version 0 where there is none."""
        ...

    async def listed(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int = 200
    ) -> tuple[Sequence[MemoryKey], bool]:
        """Keys in order, and whether there are more."""
        ...

    async def spaces(self) -> Mapping[str, MemorySpace]:
        """Every namespace that holds something."""
        ...

    async def put(
        self, namespace: str, key: str, value: Any, expected_version: int | None = None
    ) -> MemoryWrite:
        """A write to state. Raises :class:`ConflictError` when ``expected_version`` is not current."""
        ...

    async def forget(
        self, namespace: str, key: str, expected_version: int | None = None
    ) -> MemoryWrite | None:
        """As ``put``, for a deletion; None where nothing is."""
        ...


class BlobPort(Protocol):
    """Bytes by digest."""

    async def blob(self, digest: str) -> bytes:
        """Raises :class:`NotFoundError`."""
        ...


class FactPort(Protocol):
    """Facts by their place in the ledger."""

    async def fact(self, event_id: int) -> Event:
        """Raises :class:`NotFoundError`."""
        ...


class KnowledgePort(BlobPort, FactPort, Protocol):
    """What the user knows. Items carry ``event`` (ledger id) where there is one, so that answers have causes.

    Every answer contains what was durable when the question was put. Every method runs off the event loop.
    ``raw`` False masks e-mail addresses by value.
    """

    @property
    def memory(self) -> MemoryPort:
        """What agents remember."""
        ...

    async def query(
        self,
        sql: str,
        params: Sequence[Any],
        limit: int,
        *,
        raw: bool,
        tables: Collection[str] | None = None,
        most_bytes: int | None = None,
    ) -> dict[str, Any]:
        """``{columns: [str], rows: [object], truncated: bool}``; raises :class:`UsageError` for bad SQL.

        ``tables`` None: all of them; else no other table exists for this query. ``most_bytes`` of cells
        together; more is refused.
        """
        ...

    async def search(self, query: str, k: int, kinds: Sequence[str], *, raw: bool) -> list[dict[str, Any]]:
        """Best first: ``{kind, id, title, snippet, score, event, label, source, found_by}``."""
        ...

    async def read(self, kind: str, id: str, *, raw: bool) -> dict[str, Any]:
        """The whole record with its ``event``; raises :class:`NotFoundError`."""
        ...

    async def why(self, ref: str, *, raw: bool, impact: bool = False) -> dict[str, Any]:
        """The explanation graph of ``ref`` as JSON: back to its roots, or (``impact``) on to all it led to.

        Raises :class:`NotFoundError`.
        """
        ...


# --- journal --------------------------------------------------------------------------------------


class JournalPort(Protocol):
    """The one writer of facts (``runloopd.journal``)."""

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]:
        """Durable when it returns, all or nothing; raises ``LedgerWriteError`` and then nothing is stated."""
        ...

    def listen(self, callback: Callable[[list[Event]], None]) -> Any:
        """Call back with every committed batch, in order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """Ephemeral progress of a node: shown, never recorded."""

    run: str
    node: str
    kind: Literal["text", "progress", "log"]
    """``text``: a piece of a model's answer as it arrives."""
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
