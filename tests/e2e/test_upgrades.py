"""A release with a newer ledger, and the way back from it: the installed commands on a real home."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pog.connection import LEDGER
from tests.home import ROOT, Home, wait_until

JOHN = '{"contact": "john", "name": "John Doe", "emails": ["john@example.org"]}'


def version(home: Home) -> int:
    with closing(sqlite3.connect(f"{home.events_db.as_uri()}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def tomorrows(home: Home, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.tomorrows_daemon", "--home", str(home.path), *more],
        cwd=ROOT,
        env={**os.environ, **home.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@contextmanager
def upgraded(home: Home) -> Iterator[None]:
    """While tomorrow's daemon serves the home."""
    daemon = tomorrows(home)
    try:
        wait_until(lambda: home.rlp("daemon", "status").code == 0 or daemon.poll() is not None, "it serves")
        yield
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, said.decode()
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.requirement("M11")
def test_a_daemon_brings_the_ledger_on_by_itself_and_the_one_before_it_refuses_it_with_the_way_back(
    home: Home,
) -> None:
    home.rlp("kb", "write-event", "contact.upserted", JOHN).check()
    home.rlp("daemon", "stop").check()
    known = home.events()
    # Killed at the last moment it is the old ledger, and the same daemon again goes on.
    for words in ("DROP TABLE events", "COMMIT"):
        died = tomorrows(home, "--dies-at", words)
        died.communicate(timeout=60)
        assert (died.returncode, version(home)) == (-signal.SIGKILL, LEDGER.version)
    with upgraded(home):
        assert version(home) == LEDGER.version + 1
    (kept,) = home.events_db.parent.glob("events.db.version-*")
    # Today's daemon: no word of the ledger is touched, and what to do is said.
    before = home.events_db.read_bytes()
    refused = home.rlp("daemon", "start").check(3)
    assert f"is of version {LEDGER.version + 1}, this build knows {LEDGER.version}" in refused.err
    assert home.events_db.read_bytes() == before
    home.rlp("kb", "restore", str(kept)).check(4)
    back = home.rlp("kb", "restore", str(kept), "--accept-loss", "--json").check().json
    assert Path(back["aside"], "events.db").read_bytes() == before
    assert version(home) == LEDGER.version
    home.rlp("daemon", "start").check()
    home.rlp("verify").check()
    assert [event.id for event in home.events()[: len(known)]] == [event.id for event in known]


@pytest.mark.requirement("M11")
def test_a_build_tells_whether_it_comes_up_without_touching_anybodys_home(home: Home, tmp_path: Path) -> None:
    check = [sys.executable, "-I", "-m", "runloopd", "--check"]
    temporary = tmp_path / "t"
    temporary.mkdir()
    environ = {**os.environ, **home.env, "TMPDIR": str(temporary)}
    done = subprocess.run(check, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list(temporary.iterdir())
    assert not home.events_db.exists()
    # A place where no socket fits into its name: what stops a start there stops the check, in words.
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    environ["TMPDIR"] = str(deep)
    done = subprocess.run(check, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("runloopd: ")
    assert not list(deep.iterdir())


@pytest.mark.requirement("M11")
def test_who_upgrades_is_in_no_control_group_of_the_units_and_is_not_asked_to_be(
    home: Home, tmp_path: Path
) -> None:
    policy = tmp_path / "config.toml"
    policy.write_text('version = 1\n[security]\ncontrol_groups = "required"\n')
    ask = (
        "import sys; from pathlib import Path; from runloop.config import load;"
        " from runloopd.__main__ import check;"
        " load.__kwdefaults__['system_file'] = Path(sys.argv[1]); sys.exit(check())"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, str(policy)],
        env={**os.environ, **home.env}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
