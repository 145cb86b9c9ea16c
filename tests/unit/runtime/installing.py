"""A daemon's offices around an installer: a real ledger, real approvals, real files; no guests, no socket."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from pog.reader import Reader
from runloop.approval import confirming_word
from runloop.bundle.installed import INSTALL_KINDS, Installations
from runloop.bundle.signature import SigningKey
from runloop.events import Event
from runloop.testing import ManualClock
from runloopd.authority.anchors import Anchors
from runloopd.authority.approvals import APPROVAL_KINDS, Approvals
from runloopd.authority.desk import Desk, Outcome
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runtime.indexes import Indexes
from runloopd.runtime.install_rules import Wish
from runloopd.runtime.installer import Installer
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.store import Store
from tests.bundles import Built, trust_toml

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
RUNNER = "aa" * 32
PATIENCE_S = 10.0


class Shop:
    """One home. ``open`` and ``close`` are a daemon's start and stop; the files live on between them."""

    def __init__(self, home: Path, *, trusted: bool = True) -> None:
        self.home = home
        self.clock = ManualClock()
        self.used: list[tuple[str, str]] | None = None
        self.voided: list[str] = []
        self.prepared: list[str] = []
        self.prepare_error: Exception | None = None
        self.dev: SigningKey | None = None
        self.index: Path | None = None
        self.shipped: dict[str, str] = {}
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._stack = AsyncExitStack()
        home.mkdir(parents=True, exist_ok=True)
        if trusted:
            self.trust(trust_toml())

    def trust(self, text: str) -> None:
        (self.home / "trust.toml").write_text(text)
        (self.home / "trust.toml").chmod(0o600)

    async def open(self) -> Shop:
        ledger = Ledger.open(self.home / "events.db", signing_key=self._key, clock=self.clock)
        self.journal = Journal(ledger, None, self.clock)
        self.reader = Reader(self.home / "events.db")
        self.approvals = Approvals(self.journal, self.clock, expiry_ms=60_000, undo_window_ms=5_000)
        self.desk = Desk(self.approvals)
        self.installed = Installations.folded(self.reader.events(kinds=INSTALL_KINDS))
        self.anchors = Anchors(
            self.home / "trust.toml",
            self.journal,
            self.approvals,
            self.desk,
            system_file=self.home / "system.toml",
        )
        self.store = Store(self.home / "bundles")
        self.registry = Registry(
            [self.home / "agents"],
            pins=self.shipped,
            runners={"python": RUNNER},
            kept=self.store.kept,
            installed=self.installed,
            objection=self.anchors.objection,
        )
        self.installer = Installer(
            store=self.store,
            installed=self.installed,
            registry=self.registry,
            anchors=self.anchors,
            desk=self.desk,
            approvals=self.approvals,
            journal=self.journal,
            blobs=self.reader,
            clock=self.clock,
            used=self._used,
            void_tokens=self._void,
            prepare=self._prepare,
            dev_key=lambda: self.dev.public if self.dev is not None else None,
            indexes=Indexes(
                self.index,
                installed=self.installed,
                trust=self.anchors.trust,
                journal=self.journal,
                clock=self.clock,
            ),
        )
        self.approvals.restore(self.reader.events(kinds=APPROVAL_KINDS))
        self.installer.sweep()
        self.desk.resume()
        return self

    async def close(self) -> None:
        await self.desk.close()
        await self.journal.close()
        self.reader.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def _used(self, _agent: str, _runs: int) -> list[tuple[str, str]] | None:
        return self.used

    async def _void(self, agent: str, bundle: str, reason: str, _actor: str) -> None:
        self.voided.append(f"{agent} {bundle[:12]}: {reason}")

    async def _prepare(self, agent: InstalledAgent) -> None:
        self.prepared.append(agent.manifest.name)
        if self.prepare_error is not None:
            raise self.prepare_error

    # --- what a person does -----------------------------------------------------------------------

    async def propose(self, built: Built, **wish: bool) -> dict[str, Any]:
        """Ask for an install."""
        return await self.installer.install(OPERATOR, built.data, Wish(**wish))

    async def decide(self, asked: dict[str, Any] | str, decision: str = "approve") -> Outcome:
        """Answer a question and wait for what comes of it."""
        name = asked if isinstance(asked, str) else str(asked["approval"])
        approval = self.approvals.find(name)
        word = confirming_word(approval.to_json())
        await self.approvals.decide(OPERATOR, name, approval.action_digest, decision, confirm=word)
        outcome = await self.desk.outcome(name, PATIENCE_S)
        assert outcome is not None, "the question has no end"
        return outcome

    async def install(self, built: Built, **wish: bool) -> Outcome:
        """Ask, and say yes."""
        outcome = await self.decide(await self.propose(built, **wish))
        assert outcome.error is None, outcome.error
        return outcome

    # --- what is there ----------------------------------------------------------------------------

    def current(self, name: str = "acme_echo") -> str | None:
        found = self.installed.current(name)
        return None if found is None else found.version

    def facts(self, *kinds: str) -> list[Event]:
        return list(self.reader.events(kinds=kinds or None))

    def staged(self) -> list[str]:
        folder = self.store.kept / ".staged"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.store.kept.iterdir() if not path.name.startswith("."))


async def settled() -> None:
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)
