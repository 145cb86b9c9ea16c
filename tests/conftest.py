"""Fixtures every kind of test may use: a home of its own, with the compiled runner already in its cache."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.home import CACHE_KEY, Home, wait_until

SEED = "runloop-seed"

# Compiled Python is kept whatever the environment says: without it each of some thousand commands compiles
# the product's modules again, and each worker rewrites the asserts of all test modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The suite tries the same examples every time, so that a change is judged by what it changes; new ones are
# looked for on purpose: `make explore`.
# None of them is measured by the clock: the machine may be busy with something else.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", print_blob=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish() -> None:
    """Twelve thousand tests live to the end: no collection of garbage needs to look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose cache holds the compiled runner: compiled once per test session, whoever comes first."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    home = root / SEED
    home.mkdir(mode=0o700, exist_ok=True)
    with (root / f"{SEED}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            (home / "keys").mkdir(mode=0o700, exist_ok=True)
            (home / "keys" / "cache.key").touch(mode=0o600)
            (home / "keys" / "cache.key").write_bytes(CACHE_KEY)
            with Home(home) as seeded:
                seeded.rlp("daemon", "start", timeout=300).check()
                wait_until(seeded.agents_ready, "the runner to be compiled", patience_s=300)
            (home / "ready").touch()
    return home


@pytest.fixture(scope="session")
def compiled(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with the compiled runner in it, under ``CACHE_KEY``, for runtimes without a home."""
    place = tmp_path_factory.mktemp("cwasm")
    for entry in (*seed.glob("cache/*.cwasm"), *seed.glob("cache/runner-*.wasm")):
        os.link(entry, place / entry.name)
    return place


@pytest.fixture
def home(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """An empty home of a user who has used Runloop before: keys and cache, no ledger, no daemon."""
    # Short: the path of a Unix socket holds 107 bytes.
    path = tmp_path_factory.mktemp("h")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)  # it vouches for the ledger of the seed
    path.chmod(0o700)
    with Home(path) as fresh:
        yield fresh
