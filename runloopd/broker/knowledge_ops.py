"""Ops on what the user knows and what agents remember.

Knows: which part of the knowledge a right opens, when e-mail addresses are masked, which facts an agent may
propose. Does not know: SQL, files, or how facts are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, cast

from runloop.caps.policy import CONTACTS_RAW, KB_DOMAINS
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import (
    ContactUpserted,
    DocumentImported,
    MemoryUpdated,
    Payload,
    decode_payload,
)
from runloop.ops import KbPropose, KbQuery, KbRead, KbSearch, KbWhy, MemoryGet, MemoryPut
from runloopd.broker.asks import Ask, Done, require
from runloopd.broker.ports import KnowledgePort
from runloopd.broker.quotas import Quotas, check

__all__ = ["KnowledgeOps"]

MAX_HITS = 50
MAX_ROWS = 1_000

_DOMAIN_OF = {"contact": "contacts", "note": "notes", "mail": "mail"}
_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Domains that must all be granted -> tables that may then be read.
    "contacts": (("contacts",), ("contacts", "contact_emails")),
    "documents": (("notes", "mail"), ("documents",)),
    "memory": (("memory",), ("memory",)),
    "history": (
        ("history",),
        ("runs", "nodes", "artifacts", "approvals", "hostcalls", "model_calls", "emails", "messages"),
    ),
    "search": (("contacts", "notes", "mail"), ("search", "searchables")),
}
_PROPOSABLE: dict[str, type[Payload]] = {
    ContactUpserted.kind: ContactUpserted,
    DocumentImported.kind: DocumentImported,
}
"""Kinds an agent may propose: knowledge, never history or authority."""


class KnowledgeOps:
    """``kb.*`` and ``memory.*``."""

    def __init__(self, *, knowledge: KnowledgePort, quotas: Quotas) -> None:
        self._knowledge = knowledge
        self._memory = knowledge.memory
        self._quotas = quotas

    async def search(self, ask: Ask) -> Done:
        """``{items: [{kind, id, title, snippet, score, event}]}``."""
        args = cast(KbSearch, ask.args)
        if not 1 <= args.k <= MAX_HITS:
            raise UsageError(f"kb.search: k is {args.k}, not 1 to {MAX_HITS}", code="op.args")
        for kind in args.kinds:
            require(ask, "kb_read", _DOMAIN_OF[kind])
        kinds: list[str] = list(args.kinds) or [
            kind for kind, domain in _DOMAIN_OF.items() if _may(ask, domain)
        ]
        if not kinds:
            require(ask, "kb_read", "contacts")
        items = await self._knowledge.search(args.query, args.k, kinds, raw=_raw(ask))
        return Done(value={"items": items}, causes=_events(items))

    async def query(self, ask: Ask) -> Done:
        """``{columns, rows, truncated}``; only the tables of the domains that are granted exist."""
        args = cast(KbQuery, ask.args)
        if not 1 <= args.limit <= MAX_ROWS:
            raise UsageError(f"kb.query: limit is {args.limit}, not 1 to {MAX_ROWS}", code="op.args")
        tables = None
        if not all(_may(ask, domain) for domain in KB_DOMAINS):
            tables = [
                table
                for domains, names in _TABLES.values()
                if all(_may(ask, domain) for domain in domains)
                for table in names
            ]
        found = await self._knowledge.query(args.sql, args.params, args.limit, raw=_raw(ask), tables=tables)
        # Rows name no source that could be trusted (a column may be called anything), so none is claimed.
        return Done(value=found)

    async def read(self, ask: Ask) -> Done:
        """``{item}``."""
        args = cast(KbRead, ask.args)
        if args.kind == "contact":
            require(ask, "kb_read", "contacts")
        elif not (_may(ask, "notes") or _may(ask, "mail")):
            require(ask, "kb_read", "notes")
        item = await self._knowledge.read(args.kind, args.id, raw=_raw(ask))
        if args.kind == "document":
            require(ask, "kb_read", "mail" if item.get("type") == "mail" else "notes")
        return Done(value={"item": item}, causes=_events([item]))

    async def why(self, ask: Ask) -> Done:
        """The explanation graph."""
        require(ask, "kb_read", "history")
        return Done(value=await self._knowledge.why(cast(KbWhy, ask.args).ref, raw=_raw(ask)))

    async def propose(self, ask: Ask) -> Done:
        """``{kind, id}``: a contact or document of the agent's own. What the user brought in stays."""
        args = cast(KbPropose, ask.args)
        if args.kind not in _PROPOSABLE:
            raise RefusedError(
                f"an agent may not state {args.kind!r}",
                hint=f"it may propose {' or '.join(_PROPOSABLE)}",
                code="kb.kind",
            )
        require(ask, "kb_write", "contacts" if args.kind == ContactUpserted.kind else _document_domain(args))
        source = f"agent:{ask.agent}"
        fact = decode_payload(args.kind, {**args.payload, "source": source})
        kind, name = (
            ("contact", fact.contact)
            if isinstance(fact, ContactUpserted)
            else ("document", cast(DocumentImported, fact).document)
        )
        await self._refuse_foreign(kind, name, source)
        return Done(value={"kind": args.kind, "id": name}, facts=[fact], causes=ask.known, label=source)

    async def get(self, ask: Ask) -> Done:
        """``{value, version}``."""
        args = cast(MemoryGet, ask.args)
        entry = self._memory.get(_namespace(ask, args.namespace), args.key)
        causes = () if entry.event is None else (entry.event,)
        return Done(value={"value": entry.value, "version": entry.version}, causes=causes)

    def put(self, ask: Ask) -> AbstractContextManager[MemoryUpdated]:
        """The promised write, as a context manager: state the payload while it is open (``pog.memory``)."""
        args = cast(MemoryPut, ask.args)
        namespace = _namespace(ask, args.namespace)
        keys = self._memory.keys(namespace)
        if args.key not in keys:
            self._limit_keys(ask, namespace, len(keys))
        return self._memory.put(namespace, args.key, args.value, args.expected_version)

    def _limit_keys(self, ask: Ask, namespace: str, there: int) -> None:
        """One more key in an agent's own memory is its quota's matter; shared memory is just full."""
        limits = ask.run.limits.get(ask.agent) or self._quotas.of(ask.agent)
        limit = limits["memory_keys"]
        if namespace == f"agent:{ask.agent}":
            warned = ask.run.warned_agent(ask.agent)
            ask.facts += check("memory_keys", there, 1, limit, agent=ask.agent, warned=warned)
        elif there >= limit.hard:
            raise RefusedError(
                f"shared memory holds {there} keys; {limit.hard} are allowed",
                hint="write a key that exists, or raise quotas.memory_keys",
                code="memory.full",
            )

    async def _refuse_foreign(self, kind: str, name: str, source: str) -> None:
        try:
            there = await self._knowledge.read(kind, name, raw=True)
        except NotFoundError:
            return
        if there.get("source") != source:
            raise RefusedError(
                f"{kind} {name!r} was not made by this agent; it may not replace it",
                hint="propose it under another id, or have the user import it",
                code="kb.foreign",
            )


def _may(ask: Ask, domain: str) -> bool:
    return ask.grants.allows("kb_read", domain).allowed


def _raw(ask: Ask) -> bool:
    return ask.grants.allows(CONTACTS_RAW).allowed


def _namespace(ask: Ask, name: str) -> str:
    """``private`` is the agent's own, ``shared`` everybody's; no other namespace can be named."""
    if name == "private":
        return f"agent:{ask.agent}"
    if name == "shared":
        return "shared:all"
    raise RefusedError(
        f"there is no memory namespace {name!r}", hint="private or shared", code="memory.namespace"
    )


def _document_domain(args: KbPropose) -> str:
    return "mail" if args.payload.get("type") == "mail" else "notes"


def _events(items: Iterable[dict[str, Any]]) -> tuple[int, ...]:
    """Ledger ids that the knowledge base itself put into its items."""
    found = (item.get("event") for item in items)
    return tuple(dict.fromkeys(event for event in found if type(event) is int and event > 0))
