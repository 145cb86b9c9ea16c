"""``rlp import``: files become facts. Read here, by the user's own rights; stated by the daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["batches", "import_"]

BATCH_ITEMS = 200
BATCH_BYTES = 1024 * 1024
"""Bounds of one request; far below the 8 MiB a frame may have."""


def import_(session: Session, *, paths: tuple[str, ...]) -> Exit:
    """Import every path; a bad item is reported and the rest imported (exit 1)."""
    from pog import importers
    from runloop.events import encode_payload

    places = [Path(path).expanduser() for path in paths]
    problems: list[str] = []

    def items() -> Iterator[dict[str, Any]]:
        for payload in importers.parse(places, on_problem=lambda problem: problems.append(str(problem))):
            yield {"kind": payload.kind, "payload": encode_payload(payload)}

    counts = {"appended": 0, "skipped": 0}
    kinds: dict[str, int] = {}
    for batch in batches(items()):
        for item in batch:
            name = item["payload"].get("type") or item["kind"].partition(".")[0]
            kinds[name] = kinds.get(name, 0) + 1
        answer = session.ask("kb.import", 120.0, payloads=batch)
        for name in counts:
            counts[name] += answer[name]
    if session.json:
        session.console.json({**counts, "kinds": kinds, "problems": problems})
    else:
        what = ", ".join(
            f"{count} {name}{'s' if count != 1 else ''}" for name, count in sorted(kinds.items())
        )
        session.console.data(
            f"read {what or 'nothing'}: {counts['appended']} new, {counts['skipped']} known already"
        )
    for problem in problems:
        session.console.note(f"rlp: {problem}", "yellow")
    return Exit.FAILED if problems else Exit.OK


def batches(items: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Group items so that no request grows beyond the bounds (a single large item travels alone)."""
    batch: list[dict[str, Any]] = []
    held = 0
    for item in items:
        weight = sum(len(str(value)) for value in item["payload"].values())
        if batch and (len(batch) >= BATCH_ITEMS or held + weight > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += weight
    if batch:
        yield batch
