"""Ops on what the user knows and what agents remember.

Knows: which part of the knowledge a right opens, when e-mail addresses are masked, which facts an agent may
propose. Does not know: SQL, files, or how facts are stored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, cast

from runloop.caps.policy import CONTACTS_RAW, KB_DOMAINS
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import (
    ContactUpserted,
    DocumentImported,
    Payload,
    decode_payload,
)
from runloop.ops import (
    KbPropose,
    KbQuery,
    KbRead,
    KbSearch,
    KbWhy,
    MemoryDelete,
    MemoryGet,
    MemoryList,
    MemoryPut,
)
from runloopd.broker.asks import Ask, Done, require
from runloopd.broker.labels import lowest
from runloopd.broker.ports import KnowledgePort, MemoryWrite
from runloopd.broker.quotas import Quotas, check

__all__ = ["KnowledgeOps", "tables_of"]

MAX_HITS = 50
MAX_ROWS = 1_000
MAX_ANSWER_BYTES = 1024 * 1024
"""Cells of one answer to an agent, together: what it asks for is masked, which takes a second for ten times
as much."""

_DOMAIN_OF = {
    "contact": "contacts",
    "note": "notes",
    "mail": "mail",
    "record": "notes",
    "event": "calendar",
}
_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Domains that must all be granted -> tables that may then be read.
    "contacts": (("contacts",), ("contacts", "contact_emails")),
    "documents": (("notes", "mail"), ("documents",)),
    "calendar": (("calendar",), ("calendar",)),
    "memory": (("memory",), ("memory", "memory_spaces")),
    "history": (
        ("history",),
        (
            "runs",
            "nodes",
            "artifacts",
            "approvals",
            "promises",
            "hostcalls",
            "model_calls",
            "emails",
            "messages",
        ),
    ),
    "search": (("contacts", "notes", "mail", "calendar"), ("search", "searchables")),
}
_SHARED = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
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
        """``{items: [{kind, id, title, snippet, score, event, label, source, found_by}]}``."""
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
        label = lowest(*(item.get("label") for item in items))
        return Done(value={"items": items}, causes=_events(items), label=label)

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
        found = await self._knowledge.query(
            args.sql, args.params, args.limit, raw=_raw(ask), tables=tables, most_bytes=MAX_ANSWER_BYTES
        )
        # Rows name no source that could be trusted (a column may be called anything), so none is claimed.
        return Done(value=found)

    async def read(self, ask: Ask) -> Done:
        """``{item}``."""
        args = cast(KbRead, ask.args)
        if args.kind == "contact":
            require(ask, "kb_read", "contacts")
        elif args.kind == "event":
            require(ask, "kb_read", "calendar")
        elif not (_may(ask, "notes") or _may(ask, "mail")):
            require(ask, "kb_read", "notes")
        item = await self._knowledge.read(args.kind, args.id, raw=_raw(ask))
        if args.kind == "document":
            require(ask, "kb_read", "mail" if item.get("type") == "mail" else "notes")
        return Done(value={"item": item}, causes=_events([item]), label=item.get("label"))

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
        entry = await self._memory.get(_namespace(ask, args.namespace), args.key)
        causes = () if entry.event is None else (entry.event,)
        value = {"value": entry.value, "version": entry.version}
        return Done(value=value, causes=causes, label=entry.label)

    async def list(self, ask: Ask) -> Done:
        """``{keys: [{key, version, size}], truncated}``."""
        args = cast(MemoryList, ask.args)
        if not 1 <= args.limit <= MAX_ROWS:
            raise UsageError(f"memory.list: limit is {args.limit}, not 1 to {MAX_ROWS}", code="op.args")
        namespace = _namespace(ask, args.namespace)
        found, more = await self._memory.listed(
            namespace, prefix=args.prefix, after=args.after, limit=args.limit
        )
        keys = [{"key": entry.key, "version": entry.version, "size": entry.size} for entry in found]
        return Done(value={"keys": keys, "truncated": more}, causes=tuple(entry.event for entry in found))

    async def put(self, ask: Ask) -> Done:
        """``{version}``. The version is promised to nobody else until the answer is recorded."""
        args = cast(MemoryPut, ask.args)
        namespace = _namespace(ask, args.namespace)
        write = await self._memory.put(namespace, args.key, args.value, args.expected_version)
        try:
            self._limit(ask, namespace, write)
        except BaseException:
            write.end()
            raise
        return _written(ask, write)

    async def forget(self, ask: Ask) -> Done:
        """``{version}``; 0 where nothing was."""
        args = cast(MemoryDelete, ask.args)
        write = await self._memory.forget(_namespace(ask, args.namespace), args.key, args.expected_version)
        return Done(value={"version": 0}) if write is None else _written(ask, write)

    def _limit(self, ask: Ask, namespace: str, write: MemoryWrite) -> None:
        """More in an agent's own memory is its quota's matter; shared memory is just full."""
        limits = ask.run.limits.get(ask.agent) or self._quotas.of(ask.agent)
        after, before = write.after, write.before
        grown: list[tuple[str, int, int]] = [("memory_bytes", after.bytes - write.size, write.size)]
        if not before.exists:
            grown.append(("memory_keys", after.keys - 1, 1))
        for resource, there, more in grown:
            if namespace == f"agent:{ask.agent}":
                warned = ask.run.warned_agent(ask.agent)
                ask.facts += check(resource, there, more, limits[resource], agent=ask.agent, warned=warned)
            elif there + more > limits[resource].hard:
                raise RefusedError(
                    f"shared memory holds {there} {resource[7:]}; {limits[resource].hard} are allowed",
                    hint=f"delete some, or raise quotas.{resource}",
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


def tables_of(domains: Collection[str]) -> frozenset[str]:
    """Tables a query may read that is granted these domains."""
    return frozenset(
        table for needed, names in _TABLES.values() if set(needed) <= set(domains) for table in names
    )


def _may(ask: Ask, domain: str) -> bool:
    return ask.grants.allows("kb_read", domain).allowed


def _raw(ask: Ask) -> bool:
    return ask.grants.allows(CONTACTS_RAW).allowed


def _namespace(ask: Ask, name: str) -> str:
    """``private`` is the agent's own; what is shared needs the right to it; no other can be named."""
    if name == "private":
        return f"agent:{ask.agent}"
    space, _, shared = ("shared:all" if name == "shared" else name).partition(":")
    if space != "shared" or not _SHARED.match(shared):
        raise RefusedError(
            f"there is no memory namespace {name[:80]!r}",
            hint="private, shared or shared:<name>",
            code="memory.namespace",
        )
    require(ask, "memory", shared)
    return f"shared:{shared}"


def _written(ask: Ask, write: MemoryWrite) -> Done:
    return Done(
        value={"version": write.payload.entry_version},
        facts=[write.payload],
        causes=ask.known,
        label=f"agent:{ask.agent}",
        recorded=write.end,
        unrecorded=write.end,
    )


def _document_domain(args: KbPropose) -> str:
    return "mail" if args.payload.get("type") == "mail" else "notes"


def _events(items: Iterable[dict[str, Any]]) -> tuple[int, ...]:
    """Ledger ids that the knowledge base itself put into its items."""
    found = (item.get("event") for item in items)
    return tuple(dict.fromkeys(event for event in found if type(event) is int and event > 0))
