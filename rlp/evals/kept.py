"""Results of earlier evaluations: one line each in a file of the home, and what became of a task since.

Knows: the file, its bounds, which results compare (those of the same bytes of a suite). Does not know: how a
result came about. A line that cannot be read is passed over: nothing depends on it but a look back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["earlier", "keep", "rows"]

MAX_BYTES = 16 << 20
MOST = 200
"""Results that are looked back upon."""


def keep(home: Path, result: Mapping[str, Any]) -> None:
    """Add one result. Raises :class:`OSError`."""
    folder = home / "eval"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(folder / "results.jsonl", flags, 0o600)
    try:
        os.write(file, json.dumps(result, ensure_ascii=False).encode() + b"\n")  # one write: whole lines
    finally:
        os.close(file)


def earlier(home: Path, suite: str) -> list[dict[str, Any]]:
    """The last results of a suite, oldest first."""
    try:
        with (home / "eval" / "results.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(result, dict) and result.get("suite") == suite and _whole(result):
            found.append(result)
    return found[-MOST:]


def _whole(result: Mapping[str, Any]) -> bool:
    tasks = result.get("tasks")
    return (
        isinstance(result.get("ms"), int)
        and isinstance(tasks, dict)
        and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, int) for one in pair)
            for pair in tasks.values()
        )
    )


def rows(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each result: its figures, and what became better or worse since the last of its kind.

    Results compare when they are of the same bytes of the suite and the same models.
    """
    last: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    found = []
    for result in results:
        kind = (result.get("digest"), *(result.get("models") or ()))
        before = (last.get(kind) or {}).get("tasks") or {}
        now = result["tasks"]
        shares = {name: _share(pair) for name, pair in now.items()}
        better = [name for name in now if name in before and shares[name] > _share(before[name])]
        worse = [name for name in now if name in before and shares[name] < _share(before[name])]
        passed = sum(1 for pair in now.values() if _share(pair) == 1)
        last[kind] = {"tasks": {**before, **now}}
        found.append({**result, "passed": passed, "total": len(now), "better": better, "worse": worse})
    return found


def _share(pair: list[int]) -> float:
    return pair[0] / pair[1] if pair[1] else 0.0
