"""A sealed file as the source of a replay: nothing of it reaches this home, and its code only the sandbox.

Knows: how a checked file's agents come to lie below a temporary folder, where the registry checks their bytes
again. Does not know: whether the file is good (``pog.sealed.check`` has said so before), any ledger, any key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pog.chain import TEXTS, RawRow, Row
from pog.sealed.check import Sealed
from runloop.events import AgentPin, RunStarted
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["SealedSource"]


class SealedSource:
    """Implements :class:`runloopd.runs.replayer.Source`."""

    def __init__(
        self,
        sealed: Sealed,
        *,
        folder: Path,
        runtime: Runtime,
        runners: Mapping[str, Path],
        runner_digests: Mapping[str, str],
    ) -> None:
        """``folder``: empty, of this process alone; the file's agents are written below it."""
        self._sealed = sealed
        self._runtime = runtime
        self._runners = dict(runners)
        self._rows: dict[str, list[RawRow]] = {run: [] for run in sealed.manifest.runs}
        for row in sealed.content.rows:
            self._rows[row.run or ""].append(_raw(row))
        self._children: dict[str, list[str]] = {}
        for event in sealed.content.events:
            if isinstance(event.payload, RunStarted) and event.payload.parent is not None:
                self._children.setdefault(event.payload.parent.run, []).append(event.run or "")
        _write(folder, sealed.content.bundles)
        # Nobody vouches for these agents, and nobody need: they get no right and no answer but the recorded.
        self._registry = Registry([], pins={}, runners=runner_digests, kept=folder)

    def rows(self, run: str) -> Iterable[RawRow]:
        """See :class:`Source`."""
        return self._rows.get(run, ())

    def blob(self, digest: str) -> bytes:
        """See :class:`Source`."""
        return self._sealed.blob(digest)

    def children(self, run: str) -> Sequence[str]:
        """See :class:`Source`."""
        return self._children.get(run, ())

    def pinned(self, pin: AgentPin, *, library: str | None = None) -> InstalledAgent:
        """See :class:`Source`."""
        return self._registry.pinned(pin, serving=False, library=library)

    async def prepare(self, agent: InstalledAgent) -> None:
        """See :class:`Source`."""
        await self._runtime.prepare(agent.component_path or self._runners[agent.manifest.language])


def _raw(row: Row) -> RawRow:
    return tuple(
        cell.encode() if name in TEXTS and isinstance(cell, str) else cell
        for name, cell in zip(Row._fields, row, strict=True)
    )


def _write(folder: Path, bundles: Mapping[str, Mapping[str, bytes]]) -> None:
    """The names were judged by ``bundle.tar``: relative, plain, nothing beside them on a real disk."""
    for digest, files in bundles.items():
        for name, data in files.items():
            path = folder / digest / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
