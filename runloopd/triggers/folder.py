"""One look at what is watched: which files there are, and what differs from the look before.

Knows: bounds, patterns, which places are never looked at. Does not know: when to look (``watch``), or what is
done about a change. No symbolic link is followed: one that is met is passed over, and a watched path behind
which something else has been put is gone until it is back.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runloop.errors import NotFoundError, RefusedError, UsageError
from runloopd.broker.providers.walk import is_plain, is_reserved

__all__ = ["MAX_ENTRIES", "MAX_PATHS", "Look", "Watch", "checked", "places"]

MAX_PATHS = 16
"""Paths of one trigger."""
MAX_PATTERNS = 16
MAX_PATTERN_CHARS = 200
MAX_ENTRIES = 20_000
"""Files and folders below the paths of one trigger, those that no pattern names included."""
MAX_DEPTH = 32
SETTLE_MS = (200, 3_600_000)

Facts = tuple[int, int, int, int]
"""Inode, size, modified (ns), changed (ns)."""


class _TooManyError(Exception):
    """More entries than anybody looks at."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was there."""

    files: Mapping[str, Facts] = field(default_factory=dict)
    """Those a pattern names, by absolute path."""
    folders: tuple[str, ...] = ()
    """To be listened to: every folder, and where a path is gone, what is left above it."""
    gone: tuple[str, ...] = ()
    whole: bool = True
    """False: there was more than :data:`MAX_ENTRIES`, and nothing can be said."""

    def behind(self, before: Look) -> Look:
        """This look, with what is gone remembered as it was: only what comes back otherwise is a change."""
        kept = {path: facts for path, facts in before.files.items() if _within(path, self.gone)}
        return replace(self, files={**self.files, **kept}) if kept else self

    def changed_since(self, before: Look) -> list[str]:
        """Paths that are new, other or gone, in order."""
        if not (self.whole and before.whole):
            return []
        both = self.files.keys() | before.files.keys()
        return sorted(path for path in both if self.files.get(path) != before.files.get(path))

    def newer_than(self, ms: int) -> dict[str, int]:
        """Files that were written, made or moved here after a moment -> when, in milliseconds."""
        found = {path: facts[3] // 1_000_000 for path, facts in self.files.items()}
        return {path: when for path, when in found.items() if when > ms} if self.whole else {}


@dataclass(frozen=True, slots=True)
class Watch:
    """What one trigger watches."""

    paths: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    settle_ms: int = 2_000
    never: tuple[str, ...] = ()
    """Absolute paths that are never looked into: the state of this daemon."""

    def look(self) -> Look:
        """Look now. Takes as long as the file system takes: not for the event loop."""
        files: dict[str, Facts] = {}
        folders: list[str] = []
        gone: list[str] = []
        for path in self.paths:
            if not _is_itself(path):
                gone.append(path)
                folders.append(_left_of(path))
                continue
            try:
                for place, facts in self._below(path):
                    if facts is None:
                        folders.append(place)
                    elif self._names(place, path):
                        files[place] = facts
            except _TooManyError:
                return Look(folders=self.paths, whole=False)
        return Look(files, tuple(dict.fromkeys(folders)), tuple(gone))

    def _below(self, path: str) -> Iterator[tuple[str, Facts | None]]:
        """Every file with its facts, every folder with None."""
        try:
            here = os.lstat(path)
        except OSError:
            return
        if stat.S_ISREG(here.st_mode):
            yield str(Path(path).parent), None
            yield path, _facts(here)
            return
        waiting = [(path, 0)]
        seen = 0
        while waiting:
            folder, depth = waiting.pop()
            yield folder, None
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            for entry in entries:
                seen += 1
                if seen > MAX_ENTRIES:
                    raise _TooManyError
                name = os.fsencode(entry.name)
                if is_reserved(name) or _within(entry.path, self.never):
                    continue
                try:
                    facts = entry.stat(follow_symlinks=False)  # a link is neither folder nor file
                except OSError:
                    continue
                if stat.S_ISDIR(facts.st_mode) and depth < MAX_DEPTH:
                    waiting.append((entry.path, depth + 1))
                elif stat.S_ISREG(facts.st_mode) and is_plain(name):
                    yield entry.path, _facts(facts)

    def _names(self, place: str, root: str) -> bool:
        if not self.patterns:
            return True
        name, below = os.path.basename(place), place.removeprefix(root).lstrip("/")  # noqa: PTH119
        return any(
            fnmatch.fnmatchcase(below if "/" in pattern else name, pattern) for pattern in self.patterns
        )


def places(never: Iterable[Path]) -> tuple[str, ...]:
    """Places by their real names."""
    return tuple(dict.fromkeys(os.path.realpath(place) for place in never))


def checked(paths: Iterable[str], patterns: Sequence[str], settle_ms: int, never: tuple[str, ...]) -> Watch:
    """A watch on existing paths, by their real names.

    Raises :class:`UsageError` for what cannot be watched, :class:`RefusedError` for what must not be.
    """
    given = list(dict.fromkeys(paths))
    if not 1 <= len(given) <= MAX_PATHS:
        raise _bad(f"{len(given)} paths, and a trigger watches 1 to {MAX_PATHS}")
    wrong = [one for one in patterns if not 0 < len(one) <= MAX_PATTERN_CHARS]
    if wrong or len(patterns) > MAX_PATTERNS:
        raise _bad(f"more than {MAX_PATTERNS} patterns, or one of more than {MAX_PATTERN_CHARS} characters")
    if not SETTLE_MS[0] <= settle_ms <= SETTLE_MS[1]:
        raise _bad(f"{settle_ms} ms to settle, not {SETTLE_MS[0]} to {SETTLE_MS[1]}")
    real = tuple(dict.fromkeys(_real(path, never) for path in given))
    watch = Watch(real, tuple(patterns), settle_ms, never)
    if not watch.look().whole:
        raise _bad(f"more than {MAX_ENTRIES} files and folders there", "watch the folder that matters")
    return watch


def _real(path: str, ours: tuple[str, ...]) -> str:
    try:
        path.encode()
        real = os.path.realpath(path, strict=True)
        found = os.stat(real)  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"{path[:200]!r} cannot be watched: {getattr(error, 'strerror', None) or 'it is no path'}",
            hint="name a folder or a file that exists",
            code="schedule.watch",
        ) from error
    if not path.startswith("/") or not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise _bad(f"{path[:200]!r} is no absolute path of a folder or file")
    if _within(real, ours):
        raise RefusedError(
            f"{path[:200]!r} is where Runloop keeps its own state, which nobody watches",
            hint="watch a folder of yours",
            code="schedule.own",
        )
    return real


def _within(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)


def _is_itself(path: str) -> bool:
    """Whether it is there, and no symbolic link leads elsewhere."""
    return os.path.lexists(path) and os.path.realpath(path) == path


def _left_of(path: str) -> str:
    """The folder above that is still there: its return is noticed from it."""
    above = Path(path).parent
    while above != above.parent and not (above.is_dir() and _is_itself(str(above))):
        above = above.parent
    return str(above)


def _facts(found: os.stat_result) -> Facts:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _bad(why: str, hint: str = "see 'rlp schedule add --help'") -> UsageError:
    return UsageError(f"this cannot be watched: {why}", hint=hint, code="schedule.watch")
