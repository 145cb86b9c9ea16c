"""``python -m tests.crash [lanes [seed]]``: every write of both runs, one after the other, and what it cost.

Homes of failures are left where they are, and named.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.stories import COMPOSE, EVERYTHING
from tests.home import Home
from tests.killing import Ground, Nursery, Story, Survey


def main(lanes: int, seed: Path | None) -> int:
    """Print one line per story, and every failure; 1 if there is one. ``seed``: a home whose cache holds the
    compiled runner, if there is one."""
    place = Path(tempfile.mkdtemp(prefix="crash"))
    seed = seed or compiled(place / "seed")
    with Nursery() as nursery:
        ground = Ground.prepared(place / "ground", seed, (COMPOSE, EVERYTHING), nursery)
    failures = [one for story in (COMPOSE, EVERYTHING) for one in survey(story, ground, place, lanes)]
    if failures:
        print("\n".join(failures))
        return 1
    shutil.rmtree(place)
    return 0


def compiled(path: Path) -> Path:
    """A home with keys and a compiled runner."""
    path.mkdir(mode=0o700)
    with Home(path) as home:
        home.rlp("daemon", "start", timeout=300).check()
        deadline = time.monotonic() + 300
        while not home.agents_ready():
            assert time.monotonic() < deadline, "the runner was not compiled"
            time.sleep(0.5)
    return path


def survey(story: Story, ground: Ground, place: Path, lanes: int) -> list[str]:
    """Kill a story at all its writes, ``lanes`` at a time."""
    began = time.monotonic()

    def one(lane: int) -> tuple[Survey, float]:
        with Nursery() as nursery:
            found = Survey(ground, nursery, story, place / f"{story.name}-{lane}")
            found.every_write(1 + lane, lanes)
            return found, nursery.spent()

    with ThreadPoolExecutor(lanes) as pool:
        surveys = list(pool.map(one, range(lanes)))
    died, deaths = (sum(getattr(found, name) for found, _ in surveys) for name in ("died", "deaths"))
    cpu = sum(spent for _, spent in surveys)
    failures = [failure for found, _ in surveys for failure in found.failures]
    print(
        f"{story.name}: killed at {died} writes and {deaths - died} times at its end, {len(failures)} wrong; "
        f"{time.monotonic() - began:.0f} s, {cpu / deaths:.2f} s CPU each",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    lanes, *seeds = sys.argv[1:] or ["3"]
    sys.exit(main(int(lanes), Path(seeds[0]) if seeds else None))
