"""What is written into a group: every bound that its controllers allow, or no group at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runloop.config import Config, Runtime, Security
from runloopd.assembly import gate
from runloopd.broker.tools.confine import program_bounds
from runloopd.broker.tools.sandbox import Limits
from runloopd.cgroups import Bounds, Groups, undivided
from runloopd.cgroups.group import Group

FILES = (
    "cgroup.subtree_control", "cgroup.procs", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max",
    "cpu.weight",
)  # fmt: skip
BOUNDS = Bounds(memory=1 << 20, tasks=7, weight=50)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a folder comes with the files of a group, as in the kernel's own file system."""
    real = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **more: Any) -> None:
        real(self, *arguments, **more)
        for name in FILES:
            (self / name).write_text("")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return tmp_path / "group"


def written(path: Path) -> dict[str, str]:
    return {name: text for name in FILES if (text := (path / name).read_text())}


def test_a_leaf_has_every_bound_and_is_ended_whole(made: Path) -> None:
    Group(made, ("cpu", "memory", "pids"), BOUNDS, leaf=True)
    assert written(made) == {
        "memory.max": "1048576", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "7",
        "cpu.weight": "50",
    }  # fmt: skip


def test_a_runs_group_hands_its_controllers_on(made: Path) -> None:
    Group(made, ("memory", "pids"), BOUNDS, leaf=False)
    assert written(made) == {
        "memory.max": "1048576", "memory.swap.max": "0", "pids.max": "7",
        "cgroup.subtree_control": "+memory +pids",
    }  # fmt: skip


def test_without_a_controller_its_bound_is_not_claimed(made: Path) -> None:
    Group(made, (), BOUNDS, leaf=True)
    assert written(made) == {}


def test_a_group_without_one_of_its_bounds_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Group(tmp_path / "group", ("memory",), BOUNDS, leaf=True)
    assert not (tmp_path / "group").exists()


def test_a_program_is_bounded_a_little_above_what_counting_allows() -> None:
    limits = Limits(memory=100 << 20, file_bytes=8 << 20, processes=10)
    bounds = program_bounds(limits)
    assert bounds.memory is not None and bounds.tasks is not None
    assert limits.memory + 10 * (1 << 20) <= bounds.memory <= limits.memory + (64 << 20)
    assert limits.processes < bounds.tasks <= limits.processes + 16


@pytest.mark.requirement("I8.groups.4")
@pytest.mark.parametrize("wish", ["auto", "required"])
def test_a_runs_bounds_are_the_configurations(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def divided(*, run: Bounds, required: bool) -> Groups:
        asked.append((run, required))
        return undivided("a test")

    monkeypatch.setattr(gate, "divided", divided)
    runtime = Runtime(run_memory_bytes=1 << 30, run_processes=99, run_cpu_weight=7)
    gate.control_groups(Config(runtime=runtime, security=Security(control_groups=wish)))
    assert asked == [(Bounds(memory=1 << 30, tasks=99, weight=7), wish == "required")]


def test_where_there_are_none_nothing_is_put_anywhere() -> None:
    groups = undivided("a reason")
    told = groups.told()
    assert (told["hold"], told["controllers"], told["why"]) == (False, [], "a reason")
    assert groups.enter("worker", 1, pidfd=0, run="x", agent="a", bounds=Bounds()) is None
    assert groups.figures("a") == {"peak_bytes": None, "ooms": 0}
