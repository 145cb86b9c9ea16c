"""``rlp import``: files become facts. Read here, by the user's own rights; stated by the daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

if TYPE_CHECKING:
    from pog.importers import Import

__all__ = ["batches", "import_"]

BATCH_ITEMS = 200
BATCH_BYTES = 1024 * 1024
"""Bounds of one request; far below the 8 MiB a frame may have."""
PAGE = 500
MAX_ROUNDS = 100
"""Older words on one thing that are taken back, one after the other."""
SHOWN = 20
"""Vanished things that are named one by one; ``--json`` names all."""


def import_(
    session: Session,
    *,
    paths: tuple[str, ...],
    columns: tuple[str, ...] = (),
    dry_run: bool = False,
    retract_vanished: bool = False,
) -> Exit:
    """Import every path; a bad item is reported and the rest imported (exit 1)."""
    from pog import importers

    problems: list[str] = []
    notes: list[str] = []
    reading = importers.Import(
        on_problem=lambda problem: problems.append(str(problem)),
        on_note=lambda note: notes.append(str(note)),
        columns=_columns(columns),
    )
    places = [Path(path).expanduser() for path in paths]
    counts, kinds = _bring(session, reading, places, dry_run)
    vanished = [found for place in places for found in _vanished(session, reading, place)]
    gone = _retract(session, reading, places, vanished) if retract_vanished and not dry_run else 0
    if session.json:
        answer = {
            **counts, "files": reading.files, "kinds": kinds, "problems": problems, "notes": notes,
            "vanished": vanished, "retracted_now": gone, "dry_run": dry_run,
        }  # fmt: skip
        session.console.json(answer)
    else:
        _say(session, counts, kinds, dry_run)
    _tell(session, problems, notes, vanished, gone)
    return Exit.FAILED if problems else Exit.OK


def _columns(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in given:
        name, equals, header = pair.partition("=")
        if not equals or not name or not header:
            raise UsageError(
                f"{pair!r} does not say which column is what",
                hint="--column email='Mail address'",
                code="cli.option",
            )
        found[name.strip()] = header.strip()
    return found


def _bring(
    session: Session, reading: Import, places: list[Path], dry_run: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Read and state, batch by batch; ``{appended, skipped, retracted}``, and how many of each kind."""
    from runloop.events import encode_payload

    def items() -> Iterator[dict[str, Any]]:
        for item in reading.items(places):
            yield {
                "kind": item.payload.kind,
                "payload": encode_payload(item.payload),
                "origin": item.origin,
            }

    counts = {"appended": 0, "skipped": 0, "retracted": 0}
    kinds: dict[str, int] = {}
    read = 0
    for batch in batches(items()):
        for item in batch:
            name = str(item["payload"].get("type") or item["kind"].partition(".")[0])
            kinds[name] = kinds.get(name, 0) + 1
        more = {"dry_run": True} if dry_run else {}
        answer = session.ask("kb.import", 120.0, payloads=batch, **more)
        for name in counts:
            counts[name] += answer[name]
        read += len(batch)
        if read % (5 * BATCH_ITEMS) < len(batch) and session.console.err.isatty():
            session.console.say(f"  {read} items from {reading.files} files, {counts['appended']} new", "dim")
    return counts, kinds


def _vanished(session: Session, reading: Import, place: Path) -> Iterator[dict[str, Any]]:
    """What an earlier import read from below ``place`` and this one did not, page by page."""
    after: list[str] = ["", "", ""]
    while True:
        page = session.ask("kb.imported", path=str(place.resolve()), after=after, limit=PAGE)
        for item in page["items"]:
            if reading.vanished(item["kind"], item["ref"], item["origin"]):
                yield item
        if not page["truncated"] or not page["items"]:
            return
        last = page["items"][-1]
        after = [last["origin"], last["kind"], last["ref"]]


def _retract(session: Session, reading: Import, places: list[Path], vanished: list[dict[str, Any]]) -> int:
    """Have what has vanished taken back, by the event that stated it; what it said before that, too."""
    from runloop.errors import ConflictError

    left = vanished
    for _ in range(MAX_ROUNDS):
        if not left:
            break
        for item in left:
            with suppress(ConflictError):  # taken back with another one
                session.ask("kb.retract", 120.0, event=item["event"], reason=f"gone from {item['origin']}")
        left = [found for place in places for found in _vanished(session, reading, place)]
    return len(vanished) - len(left)


def _say(session: Session, counts: dict[str, int], kinds: dict[str, int], dry_run: bool) -> None:
    what = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in sorted(kinds.items()))
    said = f"read {what or 'nothing'}: {counts['appended']} new, {counts['skipped']} known already"
    if counts["retracted"]:
        said += f", {counts['retracted']} retracted before"
    session.console.data(f"{said}; nothing was stated (--dry-run)" if dry_run else said)


def _tell(
    session: Session, problems: list[str], notes: list[str], vanished: list[dict[str, Any]], gone: int
) -> None:
    console = session.console
    for problem in problems:
        console.note(f"rlp: {problem}", "yellow")
    for note in notes:
        console.detail(note)
    if notes and not console.style.verbose:
        console.say(f"{len(notes)} more remark{'s' * (len(notes) != 1)}; --verbose shows them")
    for item in vanished[:SHOWN]:
        console.say(
            f"no longer there: {item['kind']} {item['title']!r} (#{item['event']}), from {item['origin']}"
        )
    if len(vanished) > SHOWN:
        console.say(f"and {len(vanished) - SHOWN} more; --json names all")
    if gone:
        console.say(f"{gone} retracted")
    elif vanished:
        console.say("they are still known; 'rlp import --retract-vanished' takes them back")


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
