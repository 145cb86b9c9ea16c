"""Judges a call that was answered once, again, under other rights: what would the gate have said?

Knows: the gate's own check (``rights``), the ops' own checks with the recorded answer for a world
(``rehearsal.OwnChecks``), and the targets that only the record knows: the hops of a request, the model that
was asked, whom a reply went to; and what of the knowledge base a right lets an op see, beyond letting it in.
Does not know: runs, records, what becomes of a changed verdict. Nothing is performed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pog.redact import find_emails, mask
from runloop.caps.destination import kind_of_address, parse_destination
from runloop.caps.grants import NetRule
from runloop.caps.policy import KB_DOMAINS, Policy
from runloop.digest import canonical
from runloop.errors import RunloopError
from runloop.ops import OPS, Args, decode_args
from runloopd.broker.asks import Ask, CapabilityError, require
from runloopd.broker.calls import Caller, HostCall
from runloopd.broker.http_ops import net_verdict
from runloopd.broker.knowledge_ops import tables_of
from runloopd.broker.quotas import Purse, Quotas
from runloopd.broker.record import Run
from runloopd.broker.rehearsal import OwnChecks
from runloopd.broker.rights import authorise

__all__ = ["Judgement", "World", "judge", "private_addresses"]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What is on record of an answered call, beyond the call."""

    ok: bool
    value: Any
    """What the guest was given."""
    hops: Sequence[str] = ()
    """Of a request: ``METHOD scheme://host/path`` of every place that was asked, without queries."""
    to: str | None = None
    """Of something said: the address it went to."""
    grants: Policy | None = None
    """What its token granted; None where that is not on record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a call would have met."""

    kind: Literal["allowed", "denied", "open"]
    """``open``: it would be let in, and nobody can tell from the record what it would hear then."""
    error: CapabilityError | None = None
    """What the guest would have heard; of a denied call."""
    why: str = ""
    """Of an open one."""


_ALLOWED = Judgement(kind="allowed")


async def judge(caller: Caller, grants: Policy, call: HostCall, world: World | None) -> Judgement:
    """Judge a call of ``caller`` under ``grants``. ``world`` None: nothing is on record of it.

    Refusals that have nothing to do with rights are no denial here.
    """
    row = OPS.get(call.op)
    if row is None:
        return _ALLOWED
    try:
        ask = _ask(caller, grants, call)
    except RunloopError:  # arguments that no right mends
        return _ALLOWED
    script = {} if world is None or not world.ok else {call.op: world.value}
    try:
        authorise(ask.agent, caller.ops, row, grants)
        check = OwnChecks(script, Quotas()).checks.get(call.op)
        if check is not None:
            await check(ask)
        if world is not None and world.ok:
            return _on_record(ask, world)
    except CapabilityError as error:
        return Judgement(kind="denied", error=error)
    except RunloopError:
        pass  # the gate says so whatever is granted
    return _ALLOWED


def _ask(caller: Caller, grants: Policy, call: HostCall) -> Ask:
    args: Args = decode_args(call.op, call.args)
    return Ask(
        caller=caller,
        call=call,
        op=OPS[call.op],
        args=args,
        args_blob=canonical(call.args),
        args_digest=call.args_digest,
        key="",
        grants=grants,
        run=Run(caller.run, Purse(0, 0)),
        check=lambda: grants,
    )


def _on_record(ask: Ask, world: World) -> Judgement:
    """The targets that only the record knows. Raises :class:`CapabilityError`."""
    for hop in world.hops:
        method, _, url = hop.partition(" ")
        verdict = net_verdict(ask.grants, method, parse_destination(url), agent=ask.agent)
        if not verdict.allowed:
            raise CapabilityError(verdict)
    if world.to is not None:
        require(ask, "talk", world.to)
    why = _model(ask, world) or _address(ask, world) or _seen(ask, world)
    return _ALLOWED if not why else Judgement(kind="open", why=why)


def _model(ask: Ask, world: World) -> str:
    """Another model may answer where the one that did may not."""
    if ask.op.capability != "model" or not isinstance(world.value, dict):
        return ""
    target = f"{world.value.get('provider', '')}:{world.value.get('model', '')}"
    if target == ":" or ask.grants.allows("model", target).allowed:
        return ""
    return f"{target} answered, which would not be granted; another model might be asked"


def _address(ask: Ask, world: World) -> str:
    """Where a name led is not on record; the addresses in this machine or network that were granted may
    have been needed."""
    if not world.hops or world.grants is None:
        return ""
    places = [parse_destination(hop.partition(" ")[2]) for hop in world.hops]
    if all(place.address is not None or place.host == "localhost" for place in places):
        return ""
    lost = sorted(private_addresses(world.grants) - private_addresses(ask.grants))
    return f"the address {lost[0]} would not be granted, and a name may have led there" if lost else ""


def private_addresses(grants: Policy) -> set[str]:
    """Addresses in a grant that are not public, as ``policy.caps`` spells them."""
    rules = grants.value("net")
    found = set()
    for rule in rules if isinstance(rules, tuple) else ():
        if isinstance(rule, NetRule):
            host = f"[{rule.host}]" if ":" in rule.host else rule.host
            try:
                place = parse_destination(f"https://{host}/")
            except RunloopError:
                continue
            if place.address is not None and kind_of_address(place.address) is not None:
                found.add(host)
    return found


# --- what a right lets an op see ------------------------------------------------------------------


@dataclass(frozen=True)
class _Sight:
    """What of the knowledge base an agent sees."""

    grants: Policy
    domains: frozenset[str] = field(init=False)
    raw: bool = field(init=False)

    def __post_init__(self) -> None:
        domains = (name for name in KB_DOMAINS if self.grants.allows("kb_read", name).allowed)
        object.__setattr__(self, "domains", frozenset(domains))
        object.__setattr__(self, "raw", self.grants.allows("kb_read.contacts_raw").allowed)


_DOMAIN_OF = {
    "contact": "contacts",
    "note": "notes",
    "mail": "mail",
    "record": "notes",
    "document": "notes",
    "event": "calendar",
}


def _seen(ask: Ask, world: World) -> str:
    """Why the answer might be another one though the call is let in; empty: it is the same."""
    if not ask.op.name.startswith("kb.") or ask.op.effect != "read":
        return ""
    if world.grants is None:
        return ""
    had, has = _Sight(world.grants), _Sight(ask.grants)
    if has.raw != had.raw and not _without_addresses(ask, world, was_raw=had.raw):
        return "addresses would be masked" if had.raw else "addresses would not be masked"
    if has.domains == had.domains or ask.op.name in ("kb.read", "kb.why"):
        return ""  # of one thing, the domain was checked
    if ask.op.name == "kb.query":
        return _query(ask, had, has)
    return _search(ask, world, had, has)


def _without_addresses(ask: Ask, world: World, *, was_raw: bool) -> bool:
    """Whether masking makes no difference: there is no address in what was asked and answered."""
    if not was_raw or ask.op.name == "kb.query":
        return False
    asked = canonical(ask.call.args).decode()
    return mask(world.value, emails=True) == world.value and not any(find_emails(asked))


def _query(ask: Ask, had: _Sight, has: _Sight) -> str:
    """A query is the same where it names no table that comes or goes."""
    sql = str(getattr(ask.args, "sql", "")).lower()
    changed = tables_of(had.domains) ^ tables_of(has.domains)
    named = sorted(table for table in changed if table in sql)
    if named or "sqlite_" in sql or "pragma" in sql:
        return f"the query may read {named[0] if named else 'the schema'}, which would change"
    return ""


def _search(ask: Ask, world: World, had: _Sight, has: _Sight) -> str:
    """A search is the same where its kinds were named, or where it found less than it asked for and nothing
    of what goes; what comes was never searched."""
    if getattr(ask.args, "kinds", None):
        return ""
    came = has.domains - had.domains
    if came & set(_DOMAIN_OF.values()):
        return f"{sorted(came)[0]} would be searched, too"
    gone = (had.domains - has.domains) & set(_DOMAIN_OF.values())
    items = world.value.get("items", []) if isinstance(world.value, dict) else []
    found = {_DOMAIN_OF.get(str(item.get("kind")), "") for item in items}
    if gone and (gone & found or "" in found or len(items) >= getattr(ask.args, "k", 0)):
        return f"{sorted(gone)[0]} would not be searched"
    return ""
