"""What an agent made use of, by its record: the grants that let in exactly that, and nothing beyond.

Knows: which grant, as narrow as ``policy.caps`` can say it, a recorded call needs: the host with its method
and path, the directory of a file, the address of a recipient, the model that answered. Does not know: whether
it needed it after all (``shrink`` tries), what the agent may do at present. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runloop.bundle.tools import Tool
from runloop.caps.destination import parse_destination
from runloop.caps.grants import GrantError, NetRule, Value, join
from runloop.caps.policy import CAPABILITIES, KB_DOMAINS, Policy, effective
from runloop.errors import RunloopError
from runloop.ops import OPS
from runloopd.broker.hindsight import World, private_addresses

__all__ = ["Use", "needs", "policy_of"]

Use = tuple[str, Any]
"""Capability, and an entry of its value; True for a flag."""


def needs(op: str, args: Any, world: World, tools: Sequence[Tool]) -> Iterator[Use]:
    """What a call that was let in may have needed, by capability."""
    given: Mapping[str, Any] = args if isinstance(args, dict) else {}
    row = OPS.get(op)
    if row is None:
        return
    if op in ("time.now", "random.bytes"):
        yield str(row.capability), True
    elif op.startswith("kb."):
        yield from _knowledge(row.capability or "", world)
    elif op.startswith("memory.") or row.capability == "promises":
        yield from _kept(op, given)
    elif row.capability == "model":
        yield from _model(given, world)
    elif row.capability == "talk":
        yield from _talk(given, world)
    elif row.capability in ("fs_ro", "fs_rw"):
        yield row.capability, _folder(op, str(given.get("path", "/")), world)
    elif op == "mail.send":
        for field in ("to", "cc", "bcc"):
            for address in given.get(field) or ():
                yield "mail", str(address)
    elif op == "agent.delegate":
        yield from _delegated(given, world)
    elif op == "tool.call":
        yield from _tool(str(given.get("tool")), tools)
    yield from _net(op, given, world)


def policy_of(uses: Sequence[Use], present: Policy) -> Policy:
    """The uses together as a policy, as far as each is granted at present: never more than that. What cannot
    be written down as narrow as it was used stays as it is."""
    found: dict[str, Value] = {}
    for name, entry in uses:
        have = present.value(name)
        value = _written(name, entry)
        if value is None:
            value = have
        found[name] = join(found.get(name, False), value, CAPABILITIES[name].covers)
    return effective(present, Policy(found)).policy


def _written(name: str, entry: Any) -> Value | None:
    """An entry as ``policy.caps`` says it; None where it has no spelling for it."""
    if entry is True:
        return True
    try:
        return CAPABILITIES[name].parse([entry])
    except GrantError:
        return None


def _knowledge(capability: str, world: World) -> Iterator[Use]:
    for domain in KB_DOMAINS:
        yield capability, domain
    if capability == "kb_read" and (
        world.grants is None or world.grants.allows("kb_read.contacts_raw").allowed
    ):
        yield "kb_read.contacts_raw", True


def _kept(op: str, given: Mapping[str, Any]) -> Iterator[Use]:
    """Of what outlives a call: a promise by what is done with it, memory by who else has a part in it."""
    family, _, verb = op.partition(".")
    if family != "memory":
        yield "promises", verb
    else:
        yield from _memory(str(given.get("namespace", "private")))


def _memory(namespace: str) -> Iterator[Use]:
    space, _, shared = namespace.partition(":")
    if space == "shared":
        yield "memory", shared or "all"


def _model(given: Mapping[str, Any], world: World) -> Iterator[Use]:
    value = world.value if isinstance(world.value, dict) else {}
    if value.get("provider") and value.get("model"):
        yield "model", f"{value['provider']}:{value['model']}"
    elif isinstance(given.get("model"), str) and given["model"] and "*" not in given["model"]:
        yield "model", given["model"]
    else:
        yield "model", None


def _talk(given: Mapping[str, Any], world: World) -> Iterator[Use]:
    if isinstance(given.get("to"), str):
        yield "talk", given["to"]
    if world.to is not None:
        yield "talk", world.to
    for topic in given.get("topics") or ():
        yield "talk", str(topic)


def _delegated(given: Mapping[str, Any], world: World) -> Iterator[Use]:
    """Whom, and the rights that were passed on: what was made of them is in another run's record."""
    use = str(given.get("use", ""))
    yield "spawn", use.removeprefix("agent:").partition("@")[0]
    caps = given.get("caps")
    passed_on = caps if isinstance(caps, dict) else {} if world.grants is None else world.grants.grants
    for capability in passed_on:
        if capability in CAPABILITIES and capability != "spawn":
            yield capability, None


def _folder(op: str, path: str, world: World) -> str:
    """A directory that was listed or looked at is itself; of anything else, the one it lies in."""
    is_folder = isinstance(world.value, dict) and world.value.get("kind") == "dir"
    return path if op == "fs.list" or is_folder else posixpath.dirname(path)


def _tool(name: str, tools: Sequence[Tool]) -> Iterator[Use]:
    for tool in tools:
        if tool.id == name:
            words = [*tool.capabilities, *(f"secrets:{secret}" for secret in tool.secrets)]
            if tool.mcp is not None:
                words.append(f"tools:{tool.mcp.offer}")
            for word in words:
                capability, _, target = word.partition(":")
                if capability != "net" and capability in CAPABILITIES:
                    yield capability, target or True
            return
    # An offer of the host or of a server: what it needs beside its name is not on record.
    yield "tools", name
    for capability in OPS["tool.call"].also:
        if capability not in ("tools", "net"):
            yield capability, None


def _net(op: str, given: Mapping[str, Any], world: World) -> Iterator[Use]:
    """Every place that was asked, as host, port, method and path; and the addresses inside this machine or
    network that were granted, where nobody knows whether a name led there."""
    hops = list(world.hops)
    if not hops and op == "http.fetch":
        hops = [f"{str(given.get('method', 'GET')).upper()} {given.get('url', '')}"]
    for hop in hops:
        method, _, url = hop.partition(" ")
        try:
            place = parse_destination(url)
        except RunloopError:
            continue
        path = posixpath.normpath("/" + place.path.lstrip("/"))
        rule: dict[str, Any] = {
            "hosts": [f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"],
            "methods": [method],
            "paths": [path],
        }
        if place.scheme == "http":
            rule["allow_http"] = True
        written = _written("net", rule)
        if not isinstance(written, tuple) or not any(
            isinstance(one, NetRule) and one.allows(f"{method} {place}") for one in written
        ):
            del rule["paths"]  # a spelling that no rule with paths lets in
        yield "net", rule
    if hops and world.grants is not None:
        for address in sorted(private_addresses(world.grants)):
            yield "net", address
