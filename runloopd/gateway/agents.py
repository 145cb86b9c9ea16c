"""Control methods about installed agents and the trust in their publishers.

Knows: how a bundle file crosses the socket in pieces (a frame holds eight mebibytes, a bundle may hold more),
and how much of them is held at once. Does not know: what is done with it (``runtime.installer``,
``authority.anchors``). The file comes as bytes and never as a path: the daemon may not see what its user
sees, and reads nothing on the say-so of a name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from runloop.bundle.archive import MAX_ARCHIVE_BYTES
from runloop.clock import Clock
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloopd.authority.anchors import Anchors
from runloopd.authority.desk import Desk
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row
from runloopd.runs.trial import Trial, TrialCase
from runloopd.runtime.install_rules import Wish
from runloopd.runtime.installer import Installer
from runloopd.runtime.registry import Registry

__all__ = ["PIECE_BYTES", "AgentMethods", "Uploads"]

PIECE_BYTES = 3 * 1024 * 1024
"""Most bytes of one piece: as base64, with the frame around it, they fit a frame."""
MAX_UPLOADS = 2
UPLOAD_MS = 120_000
"""An upload nobody adds to for so long is forgotten."""
_WAIT_S = 25.0
"""Longest wait for an outcome in one call: clients give up at thirty seconds."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Begin(Params, frozen=True, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Piece(Params, frozen=True, kw_only=True):
    upload: str
    offset: int
    base64: Annotated[str, msgspec.Meta(max_length=PIECE_BYTES * 4 // 3 + 4)]


class Install(Params, frozen=True, kw_only=True):
    upload: str
    upgrade: bool = False
    dev_key: bool = False
    allow_downgrade: bool = False
    allow_stale_index: bool = False
    dev_swap: bool = False


class Try(Params, frozen=True, kw_only=True):
    upload: str
    cases: list[TrialCase]


class Upgrade(Params, frozen=True, kw_only=True):
    name: Name
    variant: Name = "default"
    dev_key: bool = False
    allow_downgrade: bool = False
    allow_stale_index: bool = False


class OneAgent(Params, frozen=True, kw_only=True):
    name: Name
    variant: Name = "default"


class Remove(Params, frozen=True, kw_only=True):
    name: Name
    variant: Name = "default"
    release: bool = False


class AwaitAnswer(Params, frozen=True, kw_only=True):
    approval: str
    timeout_s: float = _WAIT_S


class AddTrust(Params, frozen=True, kw_only=True):
    publisher: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    key: str
    names: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    capabilities: list[str] | None = None
    expires: str | None = None


class OnePublisher(Params, frozen=True, kw_only=True):
    publisher: str


class RevokeTrust(Params, frozen=True, kw_only=True):
    subject: str
    reason: Reason


class AgentMethods:
    """The rows ``agents.*`` and ``trust.*``. ``describe`` answers ``agents.show``."""

    def __init__(
        self,
        *,
        installer: Installer,
        anchors: Anchors,
        desk: Desk,
        registry: Registry,
        clock: Clock,
        describe: Callable[[str, str], Awaitable[dict[str, Any]]],
        trial: Trial,
    ) -> None:
        self._installer = installer
        self._anchors = anchors
        self._desk = desk
        self._registry = registry
        self._describe = describe
        self._trial = trial
        self._uploads = Uploads(clock)

    def rows(self) -> list[Row]:
        """Every method there is, written out."""
        return [
            ("agents.refused", Nothing, self._refused, False),
            ("agents.show", OneAgent, self._show, True),
            ("agents.upload", Begin, self._begin, True),
            ("agents.piece", Piece, self._piece, True),
            ("agents.try", Try, self._try, True),
            ("agents.install", Install, self._install, True),
            ("agents.upgrade", Upgrade, self._upgrade, True),
            ("agents.rollback", OneAgent, self._rollback, True),
            ("agents.remove", Remove, self._remove, True),
            ("agents.outcome", AwaitAnswer, self._outcome, True),
            ("trust.list", Nothing, self._list_trust, True),
            ("trust.add", AddTrust, self._add_trust, True),
            ("trust.remove", OnePublisher, self._remove_trust, True),
            ("trust.revoke", RevokeTrust, self._revoke_trust, True),
        ]

    # --- agents -----------------------------------------------------------------------------------

    async def _refused(self, _: Principal, __: Nothing) -> Any:
        return {"refused": [one.to_json() for one in self._registry.refused()]}

    async def _show(self, _: Principal, params: OneAgent) -> Any:
        return await self._describe(params.name, params.variant)

    async def _begin(self, principal: Principal, params: Begin) -> Any:
        upload = self._uploads.begin(principal.name, params.size, params.sha256)
        return {"upload": upload, "piece_bytes": PIECE_BYTES}

    async def _piece(self, principal: Principal, params: Piece) -> Any:
        try:
            data = base64.b64decode(params.base64, validate=True)
        except binascii.Error as error:
            raise UsageError(f"a piece is not base64: {error}", code="upload.piece") from error
        return {"have": self._uploads.add(principal.name, params.upload, params.offset, data)}

    async def _try(self, principal: Principal, params: Try) -> Any:
        archive = self._uploads.take(principal.name, params.upload)
        return await self._trial.run(archive, params.cases, who=principal.label)

    async def _install(self, principal: Principal, params: Install) -> Any:
        archive = self._uploads.take(principal.name, params.upload)
        return await self._installer.install(principal, archive, _wish(params), upgrade=params.upgrade)

    async def _upgrade(self, principal: Principal, params: Upgrade) -> Any:
        return await self._installer.upgrade(principal, params.name, params.variant, _wish(params))

    async def _rollback(self, principal: Principal, params: OneAgent) -> Any:
        return await self._installer.rollback(principal, params.name, params.variant)

    async def _remove(self, principal: Principal, params: Remove) -> Any:
        return await self._installer.remove(principal, params.name, params.variant, release=params.release)

    async def _outcome(self, _: Principal, params: AwaitAnswer) -> Any:
        outcome = await self._desk.outcome(params.approval, max(0.0, min(params.timeout_s, _WAIT_S)))
        return {"state": "waiting"} if outcome is None else outcome.to_json()

    # --- trust ------------------------------------------------------------------------------------

    async def _list_trust(self, _: Principal, __: Nothing) -> Any:
        return self._anchors.shown()

    async def _add_trust(self, _: Principal, params: AddTrust) -> Any:
        return await self._anchors.ask_add(
            params.publisher, params.key, params.names, params.capabilities, params.expires
        )

    async def _remove_trust(self, principal: Principal, params: OnePublisher) -> Any:
        return await self._anchors.remove(principal, params.publisher)

    async def _revoke_trust(self, principal: Principal, params: RevokeTrust) -> Any:
        return await self._installer.revoke(principal, params.subject, params.reason)


def _wish(params: Install | Upgrade) -> Wish:
    return Wish(
        dev_key=params.dev_key,
        allow_downgrade=params.allow_downgrade,
        allow_stale_index=params.allow_stale_index,
        dev_swap=isinstance(params, Install) and params.dev_swap,
    )


# --- pieces ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Upload:
    owner: str
    size: int
    sha256: str
    touched_ms: int
    data: bytearray = field(default_factory=bytearray)


class Uploads:
    """Bundle files on their way in, held in memory: few, bounded, and forgotten when nobody goes on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: OrderedDict[str, _Upload] = OrderedDict()

    def begin(self, owner: str, size: int, sha256: str) -> str:
        """Announce a file; its size is judged before a byte of it is held. Returns the upload's name."""
        if size > MAX_ARCHIVE_BYTES:
            raise RefusedError(
                f"the bundle file has {size} bytes, {MAX_ARCHIVE_BYTES} are allowed",
                hint="ask its author for a smaller one",
                code="archive.total_size",
            )
        self._forget_idle()
        mine = [name for name, upload in self._open.items() if upload.owner == owner]
        for name in mine:  # one at a time from one session; a new one means the old one was given up
            del self._open[name]
        if len(self._open) >= MAX_UPLOADS:
            raise ConflictError(
                f"{MAX_UPLOADS} bundle files are on their way in already",
                hint="wait a moment and try again",
                code="upload.busy",
            )
        name = secrets.token_hex(16)
        self._open[name] = _Upload(owner, size, sha256, self._clock.now_ms())
        return name

    def add(self, owner: str, name: str, offset: int, data: bytes) -> int:
        """Add the next piece; returns how many bytes there are now."""
        upload = self._mine(owner, name)
        if offset != len(upload.data) or len(data) > PIECE_BYTES or offset + len(data) > upload.size:
            del self._open[name]
            raise UsageError("a piece does not follow the one before", hint="try again", code="upload.piece")
        upload.data += data
        upload.touched_ms = self._clock.now_ms()
        return len(upload.data)

    def take(self, owner: str, name: str) -> bytes:
        """The whole file, once; its bytes are the ones that were announced."""
        upload = self._mine(owner, name)
        del self._open[name]
        data = bytes(upload.data)
        if len(data) != upload.size or hashlib.sha256(data).hexdigest() != upload.sha256:
            raise UsageError(
                "the bundle file did not arrive whole", hint="try again", code="upload.incomplete"
            )
        return data

    def _mine(self, owner: str, name: str) -> _Upload:
        self._forget_idle()
        upload = self._open.get(name)
        if upload is None or upload.owner != owner:
            raise NotFoundError("there is no such upload", hint="try again", code="upload.unknown")
        return upload

    def _forget_idle(self) -> None:
        now = self._clock.now_ms()
        for name, upload in list(self._open.items()):
            if not 0 <= now - upload.touched_ms <= UPLOAD_MS:  # below 0: the clock was set back
                del self._open[name]
