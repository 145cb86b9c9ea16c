"""Capability policy: what an agent may do at most, from which layers, and why not.

Knows: the keys of ``policy.caps`` and what each means, how layers narrow one another (manifest ceiling ∩
``policy.caps`` ∩ operator override ∩ token), and how to say no in words. Does not know: where the files
lie, who holds a token (``caps.token``), or what a host call does with a right (the gate). Pure: no I/O.

Deny by default: a key that is absent grants nothing. In an operator's override an absent key leaves the
right as it is and an empty list revokes it; whatever an override grants beyond the layers below is ignored
and reported.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runloop import toml
from runloop.caps.grants import (
    GrantError,
    NetRule,
    Value,
    covers_path,
    join,
    meet,
    parse_hosts,
    parse_roots,
    parse_words,
    pattern_covers,
    pattern_matches,
)
from runloop.errors import UsageError
from runloop.ops import OPS
from runloop.spelling import did_you_mean

__all__ = [
    "CAPABILITIES",
    "KB_DOMAINS",
    "NOTHING",
    "CapsError",
    "Effective",
    "Override",
    "Policy",
    "Verdict",
    "ceiling",
    "effective",
    "everything",
    "parse_override",
    "parse_policy",
    "union",
]

CONTACTS_RAW = "kb_read.contacts_raw"
KB_DOMAINS = ("calendar", "contacts", "history", "mail", "memory", "notes")
"""What ``kb_read`` and ``kb_write`` may be narrowed to. ``history`` is the ledger itself: runs and events."""

MAX_POLICY_BYTES = 65_536


class CapsError(UsageError):
    """A policy that cannot be read. ``findings`` lists every mistake, not the first one only."""

    code = "caps.invalid"

    def __init__(self, origin: str, findings: list[str]) -> None:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(
            f"{origin}: {findings[0]}{more}",
            hint=f"known capabilities: {', '.join(CAPABILITIES)}",
            findings=findings,
        )
        self.findings = findings


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Capability:
    """One key of ``policy.caps``."""

    name: str
    meaning: str
    """As a person reads it: "may …"."""
    parse: Callable[[Any], Value]
    covers: Callable[[Any, Any], bool] = pattern_covers
    matches: Callable[[Any, str], bool] = pattern_matches


def _flag(value: Any) -> Value:
    if type(value) is not bool:
        raise GrantError(f"expected true or false, not {type(value).__name__}")
    return value


def _words(word: str, what: str, *, fold: bool = False, listed: bool = False) -> Callable[[Any], Value]:
    compiled = re.compile(word + r"\Z")

    def parse(value: Any) -> Value:
        if listed and type(value) is bool:
            raise GrantError(f"expected a list of {what}, not a bool")
        return parse_words(value, compiled, what, fold=fold)

    return parse


def _path_matches(root: str, path: str) -> bool:
    return path.startswith("/") and ".." not in path.split("/") and covers_path(root, path.rstrip("/") or "/")


def _model_matches(pattern: str, target: str) -> bool:
    """A model pattern may name ``provider:model``, the provider alone or the model alone."""
    provider, _, model = target.partition(":")
    return any(pattern_matches(pattern, word) for word in (target, provider, model) if word)


_ADDRESS = re.compile(r"[^\s@<>(),;:\\\"\[\]]+@[^\s@<>(),;:\\\"\[\]]+\Z")


def _mail_matches(pattern: str, address: str) -> bool:
    return bool(_ADDRESS.match(address)) and pattern_matches(pattern, address.lower())


_DOMAINS = _words(f"({'|'.join(KB_DOMAINS)})", f"the domains {', '.join(KB_DOMAINS)}")

CAPABILITIES: dict[str, Capability] = {
    row.name: row
    for row in (
        Capability(
            name="fs_ro",
            meaning="read files below",
            parse=parse_roots,
            covers=covers_path,
            matches=_path_matches,
        ),
        Capability(
            name="fs_rw",
            meaning="read and write files below",
            parse=parse_roots,
            covers=covers_path,
            matches=_path_matches,
        ),
        Capability(
            name="net",
            meaning="reach over HTTP",
            parse=parse_hosts,
            covers=NetRule.covers,
            matches=NetRule.allows,
        ),
        Capability(name="time", meaning="read the clock", parse=_flag),
        Capability(name="random", meaning="draw random bytes", parse=_flag),
        Capability(name="kb_read", meaning="read the knowledge base:", parse=_DOMAINS),
        Capability(name=CONTACTS_RAW, meaning="see e-mail addresses unmasked", parse=_flag),
        Capability(name="kb_write", meaning="add facts to the knowledge base:", parse=_DOMAINS),
        Capability(
            name="memory",
            meaning="share memory with other agents in",
            parse=_words(r"[a-z][a-z0-9_]*\*?", "names of shared memory"),
        ),
        Capability(
            name="promises",
            meaning="wait for a later word:",
            parse=_words(r"(ask|await|create|resolve)", "ask, await, create, resolve"),
        ),
        Capability(
            name="talk",
            meaning="talk with agents of the same run at",
            parse=_words(r"(node|talk)/[a-z0-9_.*\[\]-]+", "node/<id> and talk/<name>, with *"),
        ),
        Capability(
            name="model",
            meaning="use the models",
            parse=_words(r"[\w.:/@+*-]+", "model patterns such as 'rules:*' or 'openai:gpt-*'"),
            matches=_model_matches,
        ),
        Capability(
            name="secrets",
            meaning="have the host use the secrets",
            parse=_words(r"runloop/[a-z0-9_*-]+/[A-Za-z0-9_.*-]+", "runloop/<scope>/<name>", listed=True),
        ),
        Capability(
            name="tools",
            meaning="call the tools",
            parse=_words(r"[A-Za-z0-9_.:/*-]+", "qualified tool names", listed=True),
        ),
        Capability(
            name="exec", meaning="run the programs", parse=_words(r"[^\s*?]+", "program names or paths")
        ),
        Capability(
            name="spawn",
            meaning="delegate to",
            parse=_words(r"(opening:)?[a-z][a-z0-9_]*\*?", "names of agents, and opening:<name>"),
        ),
        Capability(
            name="mail",
            meaning="send mail, after a person approved, to",
            parse=_words(
                r"[^\s@<>(),;:\\\"\[\]]+@[^\s@<>(),;:\\\"\[\]]+",
                "recipient patterns such as '*@example.org'",
                fold=True,
            ),
            matches=_mail_matches,
        ),
    )
}
"""Every capability there is, in the order people see them."""


# --- a policy -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer to one check, in words."""

    allowed: bool
    capability: str
    target: str
    reason: str
    how_to_obtain: str | None = None
    """What to type or change to be allowed; None when allowed."""


@dataclass(frozen=True)
class Policy:
    """Rights, in canonical form: equal policies compare equal and have one JSON text."""

    grants: Mapping[str, Value] = field(default_factory=dict)
    """Capability -> value, without the ones that grant nothing."""

    def __post_init__(self) -> None:
        kept = {name: self.grants[name] for name in CAPABILITIES if self.grants.get(name, False) is not False}
        if "kb_read" not in kept:
            kept.pop(CONTACTS_RAW, None)
        if "fs_ro" in kept and "fs_rw" in kept:
            reads = _beyond(kept["fs_ro"], kept["fs_rw"], covers_path)
            if reads is False:
                del kept["fs_ro"]
            else:
                kept["fs_ro"] = reads
        object.__setattr__(self, "grants", kept)

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json(), sort_keys=True))

    def value(self, capability: str) -> Value:
        """What is granted of a capability: False, True or the entries."""
        return self.grants.get(capability, False)

    @property
    def empty(self) -> bool:
        """True when nothing at all is granted."""
        return not self.grants

    def allows(self, capability: str, target: str = "", *, agent: str = "<agent>") -> Verdict:
        """Check one use of one capability; an unknown capability is denied.

        ``target`` is what it is used on: a path, ``[METHOD ]URL``, ``provider:model``, an address, a domain;
        empty asks whether anything of the capability is granted.
        """
        row = CAPABILITIES.get(capability)
        shown = f"{capability} {target}".rstrip()
        if row is None:
            return Verdict(
                allowed=False,
                capability=capability,
                target=target,
                reason=f"there is no capability {capability!r}",
                how_to_obtain="it cannot be granted",
            )
        value = self._readable() if capability == "fs_ro" else self.value(capability)
        if value is True or (value and not target):
            return Verdict(
                allowed=True, capability=capability, target=target, reason=f"{capability} is granted"
            )
        for entry in value or ():
            if row.matches(entry, target):
                return Verdict(
                    allowed=True,
                    capability=capability,
                    target=target,
                    reason=f"{capability} is granted for {_shown(entry)}",
                )
        granted = f"only {', '.join(map(_shown, value))} is granted" if value else "nothing of it is granted"
        return Verdict(
            allowed=False,
            capability=capability,
            target=target,
            reason=f"{shown} is not granted to {agent}: {granted}",
            how_to_obtain=_how_to_obtain(agent, capability, target),
        )

    def reaches(self, capability: str, value: Value) -> bool:
        """Whether each entry of a value is granted; of ``net``, its hosts: what may be done there (methods,
        paths, http) is narrowed by the grant and need not be said again."""
        have = self._readable() if capability == "fs_ro" else self.value(capability)
        if value is True or have is True or not have:
            return bool(value) and bool(have)
        if capability == "net":
            have, value = _hosts(have), _hosts(value)
        return bool(value) and _beyond(value, have, CAPABILITIES[capability].covers) is False

    def explain(self) -> list[str]:
        """One sentence per right, for people."""
        if self.empty:
            return ["may do nothing but compute"]
        lines = []
        for name, value in self.grants.items():
            what = "" if value is True else " " + ", ".join(map(_shown, value or ()))
            anything = " anything" if value is True and CAPABILITIES[name].parse is not _flag else ""
            lines.append(f"may {CAPABILITIES[name].meaning}{anything}{what}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The rights as a JSON object; the form tokens and events carry."""
        return {
            name: True
            if value is True
            else [entry.to_json() if isinstance(entry, NetRule) else entry for entry in value or ()]
            for name, value in self.grants.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Policy:
        """Inverse of :meth:`to_json`; raises :class:`CapsError`."""
        return Policy(_read("grants", value, ceiling_values=True)[0])

    def to_toml(self) -> str:
        """The rights as the text of a ``policy.caps``."""
        lines = ["[capabilities]"]
        for name, value in self.to_json().items():
            lines.append(f"{toml.key(name)} = {toml.value(value)}")
        return "\n".join(lines) + "\n"

    def _readable(self) -> Value:
        return join(self.value("fs_ro"), self.value("fs_rw"), covers_path)


def _hosts(value: Value) -> Value:
    """The rules of ``net`` without what they say about methods, paths and http."""
    rules = () if isinstance(value, bool) else value
    return tuple(NetRule(host=rule.host, port=rule.port) for rule in rules if isinstance(rule, NetRule))


def _how_to_obtain(agent: str, capability: str, target: str) -> str:
    """The line an operator may type after a denial; it gives back no more than the bundle's policy asks for.

    The target is foreign: it is named where it can stand in a grant as it is, and never as a pattern.
    """
    argument = ""
    if target and "*" not in target and capability != "net":  # of net, the target is a URL
        try:
            CAPABILITIES[capability].parse([target])
            argument = f" {shlex.quote(json.dumps([target]))}"
        except GrantError:
            pass
    line = f"rlp cap grant {agent} {capability}{argument}"
    return f"if its policy.caps asks for it, the operator may type: {line}"


NOTHING = Policy()


def everything() -> Policy:
    """Every right without bound: the neutral element of narrowing. Never given to an agent."""
    return Policy(dict.fromkeys(CAPABILITIES, True))


def ceiling(ops: Iterable[str]) -> Policy:
    """The most an agent can use, from the host calls its manifest declares. Unknown ops add nothing."""
    needed: set[str] = set()
    for op in ops:
        row = OPS.get(op)
        if row is not None:
            needed.update(row.also, () if row.capability is None else (row.capability,))
    if "kb_read" in needed:
        needed.add(CONTACTS_RAW)
    return Policy(dict.fromkeys(needed, True))


def union(policies: Iterable[Policy]) -> Policy:
    """What any of them grants: the outermost bound of a run with several agents."""
    merged: dict[str, Value] = {}
    for policy in policies:
        for name, value in policy.grants.items():
            merged[name] = join(merged.get(name, False), value, CAPABILITIES[name].covers)
    return Policy(merged)


# --- layers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Override:
    """An operator's file. ``keys`` are the capabilities it speaks of; the others it leaves alone."""

    policy: Policy
    keys: frozenset[str]


@dataclass(frozen=True)
class Effective:
    """What is left after every layer, and what was asked for in vain."""

    policy: Policy
    warnings: tuple[str, ...] = ()


def effective(
    top: Policy, policy: Policy, override: Override | None = None, token: Policy | None = None
) -> Effective:
    """Manifest ceiling ∩ ``policy.caps`` ∩ operator override ∩ token. Never more than any layer grants."""
    warnings: list[str] = []
    left = _narrow(top, policy, None, "policy.caps", warnings)
    if override is not None:
        left = _narrow(left, override.policy, override.keys, "the operator's override", warnings)
    if token is not None:
        # A token is made for the run, not for this agent: what it has in excess is no mistake.
        left = _narrow(left, token, None, "the token", [])
    return Effective(left, tuple(warnings))


def _narrow(
    base: Policy, layer: Policy, keys: frozenset[str] | None, origin: str, warnings: list[str]
) -> Policy:
    """``base`` ∩ ``layer``; ``keys`` None: the layer speaks of every capability."""
    left: dict[str, Value] = {}
    for name, row in CAPABILITIES.items():
        if name in ("fs_ro", "fs_rw"):
            continue
        theirs = layer.value(name) if keys is None or name in keys else True
        left[name] = meet(base.value(name), theirs, row.covers)
    speaks_ro = keys is None or "fs_ro" in keys
    speaks_rw = keys is None or "fs_rw" in keys
    reads = meet(base._readable(), layer._readable() if speaks_ro else True, covers_path)
    writes = meet(base.value("fs_rw"), layer.value("fs_rw") if speaks_rw else True, covers_path)
    left["fs_ro"], left["fs_rw"] = reads, meet(writes, reads, covers_path)
    for name, value in layer.grants.items():
        have = base._readable() if name == "fs_ro" else base.value(name)
        extra = _beyond(value, have, CAPABILITIES[name].covers)
        if extra is not False:
            what = "" if extra is True else f" {', '.join(map(_shown, extra))}"
            warnings.append(f"{origin} grants {name}{what}, which the layer below does not; ignored")
    return Policy(left)


def _beyond(value: Value, have: Value, covers: Callable[[Any, Any], bool]) -> Value:
    """The part of ``value`` that ``have`` does not cover."""
    if value is False or have is True:
        return False
    if value is True:
        return True
    return tuple(entry for entry in value if not any(covers(other, entry) for other in have or ())) or False


# --- reading --------------------------------------------------------------------------------------


def parse_policy(text: str | bytes, *, origin: str = "policy.caps") -> Policy:
    """Read a ``policy.caps``; raise :class:`CapsError` with every mistake in it."""
    return Policy(_read(origin, _table(text, origin))[0])


def parse_override(text: str | bytes, *, origin: str = "override") -> Override:
    """Read an operator's override; raise :class:`CapsError` with every mistake in it."""
    values, keys = _read(origin, _table(text, origin))
    return Override(Policy(values), frozenset(keys))


def _table(text: str | bytes, origin: str) -> Mapping[str, Any]:
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        if len(decoded) > MAX_POLICY_BYTES:
            raise CapsError(origin, [f"longer than {MAX_POLICY_BYTES} characters"])
        document = toml.loads(decoded)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CapsError(origin, [f"not TOML: {error}"]) from error
    findings = [
        f"unknown key {key!r} beside [capabilities]" for key in document if key not in ("capabilities",)
    ]
    table = document.get("capabilities", {})
    if not isinstance(table, dict):
        findings.append("'capabilities' must be a table: [capabilities]")
    if findings:
        raise CapsError(origin, findings)
    found: Mapping[str, Any] = table
    return found


def _read(
    origin: str, table: Mapping[str, Any], *, ceiling_values: bool = False
) -> tuple[dict[str, Value], set[str]]:
    """Values and the keys spoken of. ``ceiling_values``: ``true`` is understood for every capability."""
    findings: list[str] = []
    values: dict[str, Value] = {}
    spelled: dict[str, str] = {}
    for name, value in _expand(table, findings):
        row = CAPABILITIES.get("fs_ro" if name == "fs" else name)
        if row is None:
            meant = did_you_mean(name, CAPABILITIES, "")
            findings.append(f"unknown capability {name!r}" + (f"; {meant}" if meant else ""))
            continue
        if row.name in spelled:
            findings.append(f"{spelled[row.name]!r} and {name!r} say the same; keep one")
            continue
        spelled[row.name] = name
        try:
            values[row.name] = True if ceiling_values and value is True else row.parse(value)
        except GrantError as error:
            findings.append(f"{name}: {error}")
    if values.get(CONTACTS_RAW) and not values.get("kb_read"):
        findings.append(f"{CONTACTS_RAW} without kb_read: there is nothing to unmask")
    if findings:
        raise CapsError(origin, findings)
    return values, set(spelled)


def _expand(table: Mapping[str, Any], findings: list[str]) -> list[tuple[str, Any]]:
    """The entries of the table with ``kb_read = {domains, contacts_raw}`` taken apart."""
    entries: list[tuple[str, Any]] = []
    for name, value in table.items():
        if name == "kb_read" and isinstance(value, Mapping):
            unknown = sorted(set(value) - {"domains", "contacts_raw"})
            if unknown:
                findings.append(f"kb_read: unknown key {unknown[0]!r}; known: domains, contacts_raw")
            # `kb_read.contacts_raw = true` alone reads as: everything, unmasked.
            entries.append(("kb_read", value.get("domains", True)))
            if "contacts_raw" in value:
                entries.append((CONTACTS_RAW, value["contacts_raw"]))
        else:
            entries.append((str(name), value))
    return entries


def _shown(entry: Any) -> str:
    if isinstance(entry, NetRule):
        built = entry.to_json()
        return built if isinstance(built, str) else json.dumps(built, sort_keys=True)
    return str(entry)
