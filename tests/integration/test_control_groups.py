"""Control groups of the real kernel: what is put where, ended whole, and never left behind.

This kernel may hand no controller over (memory, pids, cpu); where it does, bounds are tried in a machine of
their own: packaging/tests/groups.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloopd.cgroups.group import sweep
from runloopd.cgroups.kernel import mount_point, own_group

RUN = "0b7c0b7c-0000-4000-8000-000000000001"
ROOT = Path(__file__).parents[2]


def possible() -> Path | None:
    name = own_group(Path("/proc/self/cgroup").read_text())
    found = mount_point(Path("/proc/self/mountinfo").read_text(), name)
    return found if found is not None and os.geteuid() == 0 and os.access(found, os.W_OK) else None


PLACE = possible()
pytestmark = pytest.mark.skipif(PLACE is None, reason="only root can hand a control group over, of version 2")


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[Path]:
    """A group as systemd hands it over."""
    assert PLACE is not None
    group = PLACE / f"runloop-test-{os.getpid()}"
    try:
        group.mkdir()
        os.setxattr(group, "trusted.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    yield group
    sweep(group)


def does(group: Path, what: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.groups_child", str(group), what],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


@pytest.mark.requirement("I8.groups.1")
def test_a_program_and_all_it_starts_is_one_group_of_its_run_and_ends_whole(handed: Path) -> None:
    told, during, ended, after = does(handed, "program")
    assert told["told"]["hold"]
    assert during == {
        "tree": [f"run-{RUN}", f"run-{RUN}/program-1", "supervisor"], "inside": 6, "alone": True
    }  # fmt: skip
    assert ended == {"killed_by": "deadline", "alive": []}
    assert after == {"tree": ["supervisor"], "cpu": True}


@pytest.mark.requirement("I8.groups.2")
def test_a_program_without_its_group_is_not_run(handed: Path) -> None:
    _, outcome = does(handed, "refused")
    assert (outcome["ran"], outcome["running"]) == (False, 0)
    assert "could not be given its control group" in outcome["why"]


@pytest.mark.requirement("I8.groups.1", "I8.groups.2")
def test_a_worker_is_in_the_group_of_its_run_or_does_not_live(handed: Path) -> None:
    _, ended, after, unplaced = does(handed, "worker")
    assert ended["ok"] and [name.rpartition("-")[0] for name in ended["during"]] == [
        f"run-{RUN.rpartition('-')[0]}", f"run-{RUN}/worker"
    ]  # fmt: skip
    assert after == {"tree": ["supervisor", "zygote"]}
    assert unplaced == {"ok": False, "code": "guest.no_worker"}


@pytest.mark.requirement("I8.groups.3")
def test_what_a_crashed_daemon_left_is_killed_and_removed_at_the_next_start(handed: Path) -> None:
    left = handed / f"run-{RUN}" / "program-7"
    left.mkdir(parents=True)
    (handed / "somebody-elses").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as orphan:
        (left / "cgroup.procs").write_text(str(orphan.pid))
        does(handed, "nothing")
        assert orphan.wait(10) == -9
    assert not left.exists() and (handed / "somebody-elses").is_dir()


@pytest.mark.requirement("I8.groups.4")
def test_whoever_insists_on_bounds_does_not_start_without_the_controllers(handed: Path) -> None:
    handed_over = (handed / "cgroup.controllers").read_text().split()
    (said,) = does(handed, "required")
    if {"memory", "pids"} <= set(handed_over):
        assert said["told"]["hold"]
    else:
        assert "lacks" in said["refused"]


def test_whoever_is_not_alone_in_his_group_divides_nothing(handed: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as other:
        (handed / "cgroup.procs").write_text(str(other.pid))
        (said,) = does(handed, "nothing")
        other.kill()
    assert not said["told"]["hold"] and "2 processes share" in said["told"]["why"]
    assert not (handed / "supervisor").exists()
