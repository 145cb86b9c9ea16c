"""Who may publish agents here: the trust files as they are now, and the operator's way to change his own.

Knows: ``<home>/trust.toml`` and ``/etc/runloop/trust.toml``, who may own and write them, that widening needs
a person and narrowing does not. Does not know: what is in a bundle, or how a signature is checked
(``runloop.bundle.trust``).

Nothing is believed while a file cannot be read or has a mistake. A widening is stated before the file is
written, a narrowing after it: whatever a crash cuts in between, less is trusted, never more.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runloop import toml
from runloop.bundle.installed import Installation
from runloop.bundle.signature import PublicKey
from runloop.bundle.trust import (
    RESERVED_PUBLISHERS,
    Anchor,
    Trust,
    TrustError,
    TrustFileError,
    combine,
    parse_trust,
)
from runloop.errors import ConflictError, FailedError, NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import Draft, Provenance, TrustChanged
from runloopd.authority.approval import Approval, Decided
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk
from runloopd.authority.mint import Appender
from runloopd.bus.principal import Principal

__all__ = ["ADD", "SYSTEM_FILE", "Anchors"]

ADD = "trust.add"
"""Op of the question that widens trust."""
SYSTEM_FILE = Path("/etc/runloop/trust.toml")
_MAX_BYTES = 1024 * 1024
_KEY_ID = re.compile(r"ed25519:[0-9a-f]{32}\Z")


class Anchors:
    """The trust of one home."""

    def __init__(
        self,
        user_file: Path,
        journal: Appender,
        approvals: Approvals,
        desk: Desk,
        *,
        system_file: Path = SYSTEM_FILE,
    ) -> None:
        self._user_file = user_file
        self._system_file = system_file
        self._journal = journal
        self._approvals = approvals
        self._desk = desk
        self._changing = asyncio.Lock()
        self._read: dict[Path, tuple[tuple[int, ...], Trust]] = {}
        desk.serve(ADD, self)

    # --- looking ----------------------------------------------------------------------------------

    def trust(self) -> Trust:
        """What both files leave, as of now. Raises :class:`TrustFileError` or :class:`RefusedError`."""
        user = self._file(self._user_file, system=False)
        system = self._file(self._system_file, system=True)
        return combine(user or Trust(), system)

    def objection(self, one: Installation) -> RunloopError | None:
        """Why an installed agent must not start any more: its key or its bundle was revoked, or nobody can
        tell. An anchor that was removed or expired since lets nothing new in, and what is here stays."""
        try:
            trust = self.trust()
        except RunloopError as error:
            return TrustError(
                f"whether {one.name} is still trusted cannot be told: {error.message}",
                hint=error.hint,
                code="trust.unknown",
            )
        row = trust.revocation(key_id=one.key, bundle=one.bundle, publisher=one.publisher)
        if row is None:
            return None
        what = "its key" if row.key_id is not None else "this bundle"
        return TrustError(
            f"the agent {one.name} {one.version} is not started: {what} was revoked: {row.reason}",
            hint=f"install another version, or 'rlp agent remove {one.name}'",
            code="trust.key_revoked" if row.key_id is not None else "trust.bundle_revoked",
        )

    def shown(self) -> dict[str, Any]:
        """For ``rlp trust list``: every anchor that counts and every revocation."""
        trust = self.trust()
        return {
            "file": str(self._user_file),
            "system_file": str(self._system_file) if self._system_file.exists() else None,
            "only_system": trust.only,
            "anchors": [_shown(anchor) for _, anchor in sorted(trust.anchors.items())],
            "revoked": [
                {"key": row.key_id, "bundle": row.bundle, "reason": row.reason} for row in trust.revoked
            ],
        }

    # --- widening: needs a person -----------------------------------------------------------------

    async def ask_add(
        self,
        publisher: str,
        key: str,
        names: list[str],
        capabilities: list[str] | None,
        expires: str | None,
    ) -> dict[str, Any]:
        """Put the question whether a publisher's key may be trusted for these names.

        A publisher that is trusted already gets the key in addition (rotation), its bounds replaced by the
        ones given. Raises :class:`UsageError` or :class:`TrustFileError` when the entry would not be valid.
        """
        public = PublicKey.parse(key)
        if publisher in RESERVED_PUBLISHERS:
            raise UsageError(
                f"{publisher!r} is a name of Runloop's own", hint="choose another", code="trust.name"
            )
        top = self._table()
        before = dict(top.get("anchors", {}).get(publisher, {}))
        after = _entry(before, public, names, capabilities, expires)
        parse_trust(_toml(_with_anchor(top, publisher, after)), origin=str(self._user_file))
        self._would_count(publisher, public)
        if _plain(before) == _plain(after):
            return {"state": "current", "publisher": publisher, "key": public.key_id}
        action = {
            "summary": f"trust {publisher} to publish agents called {', '.join(names)}",
            "publisher": publisher,
            "key": public.key_id,
            "public_key": str(public),
            "before": _plain(before),
            "after": _plain(after),
            "resource": str(self._user_file),
            "recipients": [],
            "agent": "operator",
            "bundle": "",
            "amount_micro_usd": 0,
        }
        approval = await self._desk.ask(ADD, publisher, action, _text(publisher, public, before, after))
        return {"state": "waiting", "approval": approval.id, "publisher": publisher, "key": public.key_id}

    async def granted(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        """A person said yes. Implements :class:`runloopd.authority.desk.Handler`."""
        action = approval.action
        publisher = str(action["publisher"])
        after = _from_plain(action["after"])
        async with self._changing:
            top = self._table()
            if _plain(dict(top.get("anchors", {}).get(publisher, {}))) != action["before"]:
                raise ConflictError(
                    f"the trust in {publisher} was changed since the question was put",
                    hint=f"'rlp trust list' shows it; ask again with 'rlp trust add {publisher}'",
                    code="trust.changed",
                )
            changed = _with_anchor(top, publisher, after)
            parse_trust(_toml(changed), origin=str(self._user_file))
            fact = TrustChanged(
                change="add",
                subject=publisher,
                before=action["before"],
                after=action["after"],
                reason=decided.note,
                approval=approval.id,
                principal=decided.principal,
            )
            content = _text(publisher, PublicKey.parse(action["public_key"]), action["before"], after)
            stamp = Provenance(causes=(approval.requested, approval.decided))
            draft = Draft(payload=fact, actor=decided.principal, provenance=stamp)
            await self._approvals.claim(approval.id, action, content.encode(), draft)
            await asyncio.to_thread(self._write, changed)
            self._approvals.consumed(approval.id)
        return {"publisher": publisher, "key": action["key"], "file": str(self._user_file)}

    async def refused(self, approval: Approval) -> None:
        """Nothing was prepared, so nothing is to be cleaned up."""

    # --- narrowing: at once -----------------------------------------------------------------------

    async def remove(self, principal: Principal, publisher: str) -> dict[str, Any]:
        """Trust a publisher no longer. Its agents that are installed stay; nothing more of it comes in."""
        async with self._changing:
            top = self._table()
            anchors = dict(top.get("anchors", {}))
            if publisher not in anchors:
                raise NotFoundError(
                    f"{self._user_file} has no anchor {publisher!r}", hint="'rlp trust list' names them"
                )
            before = anchors.pop(publisher)
            await asyncio.to_thread(self._write, {**top, "anchors": anchors})
            event = await self._state(principal, "remove", publisher, _plain(before), {}, "")
        return {"publisher": publisher, "event": event}

    async def revoke(self, principal: Principal, subject: str, reason: str) -> dict[str, Any]:
        """Believe a key (``ed25519:…``, its id or itself) or a bundle (64 hex digits) no more, whoever
        vouches for it."""
        field = "key" if subject.startswith("ed25519:") else "bundle"
        if field == "key" and not _KEY_ID.match(subject):
            subject = PublicKey.parse(subject).key_id
        row = {field: subject, "reason": reason}
        async with self._changing:
            top = self._table()
            rows = [*top.get("revoked", []), row]
            changed = {**top, "revoked": rows}
            parse_trust(_toml(changed), origin=str(self._user_file))
            if any(one.get(field) == subject for one in top.get("revoked", [])):
                return {"subject": subject, "event": None}
            await asyncio.to_thread(self._write, changed)
            event = await self._state(principal, "revoke", subject, {}, row, reason)
        return {"subject": subject, "event": event}

    async def _state(
        self,
        principal: Principal,
        change: Any,
        subject: str,
        before: dict[str, Any],
        after: dict[str, Any],
        reason: str,
    ) -> int:
        fact = TrustChanged(
            change=change,
            subject=subject,
            before=before,
            after=after,
            reason=reason,
            approval=None,
            principal=principal.label,
        )
        (event,) = await self._journal.append(Draft(payload=fact, actor=principal.label))
        return event.id

    # --- files ------------------------------------------------------------------------------------

    def _would_count(self, publisher: str, key: PublicKey) -> None:
        """Refuse what the system file would make void: a person is not asked for nothing."""
        system = self._file(self._system_file, system=True)
        if system is None:
            return
        if system.only or publisher in system.anchors or system.anchor_of(key.key_id) is not None:
            raise RefusedError(
                f"{self._system_file} decides about this already, and only its administrator may widen it",
                hint="ask whoever administers this machine",
                code="trust.system",
            )

    def _file(self, path: Path, *, system: bool) -> Trust | None:
        """The file, parsed anew only when it changed: a change sets its ctime, which nobody can set back."""
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TrustFileError(str(path), [f"it cannot be read: {error.strerror}"]) from error
        try:
            facts = os.fstat(opened)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()):
                raise TrustFileError(str(path), ["it is not a file of yours"])
            if facts.st_mode & 0o022:
                raise TrustFileError(str(path), [f"others may write it; chmod go-w {path}"])
            identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            known = self._read.get(path)
            if known is not None and known[0] == identity:
                return known[1]
            with os.fdopen(opened, "rb", closefd=False) as file:
                made = parse_trust(file.read(_MAX_BYTES), origin=str(path), system=system)
        finally:
            os.close(opened)
        self._read[path] = (identity, made)
        return made

    def _table(self) -> dict[str, Any]:
        """The user's file as TOML, judged valid before."""
        if self._file(self._user_file, system=False) is None:
            return {"version": 1}
        return tomllib.loads(self._user_file.read_text(encoding="utf-8"))

    def _write(self, top: Mapping[str, Any]) -> None:
        """Replace the file in one step, durable when it returns."""
        try:
            self._user_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, fresh = tempfile.mkstemp(dir=self._user_file.parent, prefix=".trust-")
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(_toml(top))
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).replace(self._user_file)
        except OSError as error:
            raise FailedError(
                f"{self._user_file} cannot be written: {error.strerror}",
                hint="make its folder writable; nothing was changed in it",
                code="trust.write",
            ) from error


# --- entries --------------------------------------------------------------------------------------


def _entry(
    before: Mapping[str, Any],
    key: PublicKey,
    names: list[str],
    capabilities: list[str] | None,
    expires: str | None,
) -> dict[str, Any]:
    keys = [text for text in before.get("keys", []) if PublicKey.parse(text) != key]
    made: dict[str, Any] = {"keys": [*keys, str(key)], "names": names}
    if capabilities is not None:
        made["capabilities"] = capabilities
    if expires is not None:
        made["expires"] = _date(expires)
    return made


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a date", hint="write it as 2027-01-31", code="trust.expires"
        ) from error


def _with_anchor(top: Mapping[str, Any], publisher: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**top, "anchors": {**top.get("anchors", {}), publisher: entry}}


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as JSON: dates as text."""
    return {
        name: value.isoformat() if isinstance(value, datetime.date) else value
        for name, value in entry.items()
    }


def _from_plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(entry)
    if "expires" in made:
        made["expires"] = datetime.date.fromisoformat(made["expires"])
    return made


def _text(publisher: str, key: PublicKey, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What a person reads before trusting somebody."""
    capabilities = after.get("capabilities")
    lines = [
        f"publisher     {publisher}" + (" (trusted already; this changes the entry)" if before else ""),
        f"key           {key.key_id}",
        f"public key    {key}",
        f"agents        {', '.join(after['names'])}",
        "capabilities  " + ("any" if capabilities is None else ", ".join(capabilities) or "none"),
        f"until         {after.get('expires') or 'revoked'}",
        "",
        "Whoever holds this key can then publish agents under these names.",
        "Each install and each upgrade is still asked for. Compare the key id with",
        "what the publisher tells you elsewhere.",
    ]
    return "\n".join(lines) + "\n"


def _shown(anchor: Anchor) -> dict[str, Any]:
    day = None
    if anchor.expires_ms is not None:
        at = datetime.datetime.fromtimestamp(anchor.expires_ms / 1000, datetime.UTC)
        day = at.date().isoformat()
    return {
        "publisher": anchor.publisher,
        "keys": [key.key_id for key in anchor.keys],
        "public_keys": [str(key) for key in anchor.keys],
        "names": list(anchor.names),
        "capabilities": sorted(anchor.capabilities) if anchor.capabilities is not None else None,
        "expires": day,
        "from": "system" if anchor.system else "user",
    }


def _toml(top: Mapping[str, Any]) -> str:
    """A trust file as text."""
    lines = [
        "# Whom this user lets publish agents. 'rlp trust' changes it.",
        f"version = {top.get('version', 1)}",
    ]
    for publisher, entry in sorted(top.get("anchors", {}).items()):
        lines += ["", f"[anchors.{toml.value(publisher)}]"]
        lines += [f"{name} = {toml.value(value)}" for name, value in entry.items()]
    for row in top.get("revoked", []):
        lines += ["", "[[revoked]]", *(f"{name} = {toml.value(value)}" for name, value in row.items())]
    return "\n".join(lines) + "\n"
