"""The operator's overrides: what each agent may do now, shown, narrowed and widened back.

Knows: ``caps/overrides/<agent>.toml``, the fact ``policy.changed`` that precedes every write, and how the
layers meet. Does not know: who serves agents (it is given their own policy), or what a right is used for.
An override only narrows; widening it back is an act of the operator and never goes beyond what the
agent's bundle asks for.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runloop import toml
from runloop.caps.grants import GrantError, Value
from runloop.caps.policy import (
    CAPABILITIES,
    CapsError,
    Effective,
    Override,
    Policy,
    effective,
    parse_override,
)
from runloop.digest import canonical
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import Draft, PolicyChanged, Provenance
from runloop.ids import agent_name
from runloop.spelling import did_you_mean
from runloopd.authority.mint import Appender, Mint
from runloopd.bus.principal import Principal

__all__ = ["AgentRights", "Policies"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRights:
    """What an installed agent brings along, before the operator's word."""

    name: str
    version: str
    top: Policy
    """Ceiling of its manifest: the host calls it declares."""
    policy: Policy
    """Its ``policy.caps``."""


class Policies:
    """Effective rights of every agent, and the operator's way to change them."""

    def __init__(
        self,
        overrides_dir: Path,
        rights: Callable[[], Mapping[str, AgentRights]],
        journal: Appender,
        mint: Mint,
    ) -> None:
        self._dir = overrides_dir
        self._rights = rights
        self._journal = journal
        self._mint = mint

    def effective(self, agent: str, top: Policy, policy: Policy) -> Effective:
        """Manifest ∩ policy.caps ∩ override, as of now. A broken override denies everything."""
        return effective(top, policy, self.override(agent))

    def now(self, agent: str) -> Policy:
        """What an agent may do at this moment. Raises :class:`NotFoundError` for one that is not here."""
        rights = self._known(agent)
        return self.effective(rights.name, rights.top, rights.policy).policy

    def override(self, agent: str) -> Override | None:
        """The operator's file, or None. Raises :class:`CapsError` when it cannot be read."""
        path = self._path(agent)
        try:
            return parse_override(path.read_bytes(), origin=str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CapsError(str(path), [f"cannot be read: {error.strerror}"]) from error

    def show(self, agent: str | None) -> list[dict[str, Any]]:
        """One object per agent: effective rights, what was narrowed, warnings, in words."""
        rights = self._rights()
        names = sorted(rights) if agent is None else [self._known(agent).name]
        return [self._shown(rights[name]) for name in names]

    def _shown(self, rights: AgentRights) -> dict[str, Any]:
        asked = effective(rights.top, rights.policy)
        now = self.effective(rights.name, rights.top, rights.policy)
        return {
            "agent": rights.name,
            "version": rights.version,
            "asked": asked.policy.to_json(),
            "effective": now.policy.to_json(),
            "words": now.policy.explain(),
            "narrowed": sorted(set(asked.policy.grants) - set(now.policy.grants)),
            "warnings": [*asked.warnings, *(w for w in now.warnings if w not in asked.warnings)],
        }

    async def grant(self, principal: Principal, agent: str, capability: str, value: Any) -> dict[str, Any]:
        """Widen an override back, at most to what the bundle asks for; the fact comes first."""
        rights = self._known(agent)
        self._capability(capability)
        wanted = _wanted(capability, value)
        table = self._table(agent)
        before = dict(table)
        if wanted is True or capability not in table:
            table.pop(capability, None)
        else:
            table[capability] = [*_entries(table[capability]), *_entries(value)]
        after = effective(rights.top, rights.policy, _parse(table)).policy
        if not after.reaches(capability, wanted):
            named = "" if wanted is True else f" {canonical(_entries(value)).decode()}"
            raise RefusedError(
                f"{agent} cannot be granted {capability}{named}: "
                "its bundle does not ask for it, and an override only narrows",
                hint=f"'rlp cap list {agent}' shows what it has; more is for its bundle to ask",
                code="cap.beyond_bundle",
            )
        return await self._change(principal, rights, "grant", capability, before, table)

    async def revoke(
        self, principal: Principal, agent: str | None, capability: str | None, token: str | None
    ) -> dict[str, Any]:
        """Take a right from an agent, or void a token with all that was narrowed from it."""
        if token is not None:
            event = await self._mint.revoke(token, "revoked by the operator", actor=principal.label)
            return {"token": getattr(event.payload, "token", token), "event": event.id}
        if agent is None:
            raise UsageError("name an agent or a token", hint="rlp cap revoke <agent> <capability>")
        rights = self._known(agent)
        names = [capability] if capability is not None else sorted(rights.policy.grants)
        table = self._table(agent)
        before = dict(table)
        for name in names:
            self._capability(name)
            table[name] = _nothing(name)
        shown = await self._change(principal, rights, "revoke", capability or "*", before, table)
        # What runs now was narrowed under the old policy: its tokens are void, so that nothing more is
        # admitted under a right that was taken away (attacks.md C12).
        reason = f"the operator revoked {capability or 'every right'} of {agent}"
        voided = await self._mint.revoke_agent(agent, reason, actor=principal.label)
        return {**shown, "tokens_voided": len(voided)}

    async def _change(
        self,
        principal: Principal,
        rights: AgentRights,
        change: Any,
        capability: str,
        before: dict[str, Any],
        after: dict[str, Any],
    ) -> dict[str, Any]:
        _parse(after)
        (event,) = await self._journal.append(
            Draft(
                payload=PolicyChanged(
                    agent=rights.name,
                    change=change,
                    capability=capability,
                    before=before,
                    after=after,
                    principal=principal.label,
                ),
                actor=principal.label,
                provenance=Provenance(agent=rights.name),
            )
        )
        self._write(rights.name, after)
        return {**self._shown(rights), "event": event.id}

    # --- files ------------------------------------------------------------------------------------

    def _path(self, agent: str) -> Path:
        return self._dir / f"{agent_name(agent)}.toml"

    def _table(self, agent: str) -> dict[str, Any]:
        path = self._path(agent)
        if self.override(agent) is None:
            return {}
        return dict(tomllib.loads(path.read_text(encoding="utf-8")).get("capabilities", {}))

    def _write(self, agent: str, table: Mapping[str, Any]) -> None:
        """Replace the file in one step; an empty override is no file."""
        path = self._path(agent)
        if not table:
            path.unlink(missing_ok=True)
            return
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        fresh.write_text(_toml(table), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(path)

    def _known(self, agent: str) -> AgentRights:
        known = self._rights()
        rights = known.get(agent_name(agent))
        if rights is None:
            raise NotFoundError(
                f"no agent is called {agent!r}",
                hint=did_you_mean(agent, known, "'rlp cap list' names them"),
            )
        return rights

    @staticmethod
    def _capability(name: str) -> None:
        if name not in CAPABILITIES:
            raise UsageError(
                f"there is no capability {name!r}",
                hint=did_you_mean(name, CAPABILITIES),
                code="cap.unknown",
            )


def _parse(table: Mapping[str, Any]) -> Override:
    return parse_override(_toml(table), origin="override")


def _toml(table: Mapping[str, Any]) -> str:
    """An override as text."""
    lines = [f'"{name}" = {toml.value(value)}' for name, value in sorted(table.items())]
    return "\n".join(["[capabilities]", *lines]) + "\n"


def _nothing(capability: str) -> Any:
    """The value that revokes: an empty list, or false for a plain flag."""
    try:
        CAPABILITIES[capability].parse([])
    except ValueError:
        return False
    return []


def _entries(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if isinstance(value, bool) else [value]


def _wanted(capability: str, value: Any) -> Value:
    """What is to be given back: all of it, or the entries named."""
    if value is True:
        return True
    entries = _entries(value)
    try:
        if not entries:
            raise GrantError("that is nothing")
        return CAPABILITIES[capability].parse(entries)
    except GrantError as error:
        raise UsageError(
            f"{capability} cannot be granted {canonical(value).decode()}: {error}",
            hint="without a value, everything its policy.caps asks for of it comes back",
            code="cap.value",
        ) from error
