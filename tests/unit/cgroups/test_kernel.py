"""Which control group is ours: read from what the kernel says of this process, never guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.cgroups import NotDelegated
from runloopd.cgroups.kernel import delegated, mount_point, own_group

UNIFIED = "23 2 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
INSIDE = "41 31 0:38 /payload /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
BLANK = "41 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0::/system.slice/runloop.service\n", "/system.slice/runloop.service"),
        ("4:memory:/x\n1:name=systemd:/y\n0::/z\n", "/z"),
        ("0::/gone (deleted)\n", "/gone"),
        ("4:memory:/x\n", None),
        ("0:memory:/x\n", None),
        ("", None),
    ],
    ids=["unified", "hybrid", "deleted", "version 1 alone", "version 1 as 0", "nothing"],
)
def test_the_group_of_version_2_is_found_among_the_others(text: str, name: str | None) -> None:
    assert own_group(text) == name


@pytest.mark.parametrize(
    ("mounts", "name", "place"),
    [
        (UNIFIED, "/a.service", "/sys/fs/cgroup/a.service"),
        (UNIFIED, "/", "/sys/fs/cgroup"),
        (HYBRID, "/a", "/sys/fs/cgroup/unified/a"),
        (INSIDE, "/payload/a", "/sys/fs/cgroup/a"),
        (INSIDE, "/payloads/a", None),
        (INSIDE, "/other", None),
        (BLANK, "/a", "/mnt/a b/a"),
        (UNIFIED, "/../../escaped", None),
        ("", "/a", None),
    ],
    ids=["unified", "root", "hybrid", "inside", "like inside", "outside", "blank", "above", "none"],
)
def test_where_a_group_lies_follows_from_the_mounts(mounts: str, name: str, place: str | None) -> None:
    assert mount_point(mounts, name) == (None if place is None else Path(place))


@given(st.text(), st.text())
def test_nothing_that_proc_may_say_is_more_than_a_place_or_none(group: str, mounts: str) -> None:
    found = mount_point(mounts, own_group(group))
    assert found is None or ".." not in found.parts


def process(tmp_path: Path, *, inside: str, mode: int = 0o755) -> Path:
    """A /proc of a process in a group that this test made."""
    group = tmp_path / "tree" / "mine"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(inside)
    (group / "cgroup.controllers").write_text("io memory pids rdma\n")
    group.chmod(mode)
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("0::/mine\n")
    (proc / "mountinfo").write_text(f"1 2 0:1 / {tmp_path}/tree rw - cgroup2 cgroup2 rw\n")
    return proc


def marked(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr(os, "getxattr", lambda *_: value)


def test_a_group_that_was_handed_over_is_ours_with_its_controllers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = process(tmp_path, inside=f"{os.getpid()}\n")
    marked(monkeypatch, b"1")
    mine = delegated(proc)
    assert mine.path == tmp_path / "tree" / "mine"
    assert mine.controllers == ("memory", "pids")


def test_a_group_with_somebody_else_in_it_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(monkeypatch, b"1")
    with pytest.raises(NotDelegated, match="2 processes share"):
        delegated(process(tmp_path, inside=f"{os.getpid()}\n1\n"))


def test_root_divides_no_group_that_only_happens_to_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    proc = process(tmp_path, inside=f"{os.getpid()}\n")
    for value in (b"0", b""):
        marked(monkeypatch, value)
        with pytest.raises(NotDelegated, match="nobody handed this one over"):
            delegated(proc)


def test_a_group_that_is_not_writable_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotDelegated, match="Delegate="):
        delegated(process(tmp_path, inside=f"{os.getpid()}\n"))


def test_a_machine_without_them_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotDelegated, match="/proc does not tell"):
        delegated(tmp_path)
    (tmp_path / "cgroup").write_text("4:memory:/x\n")
    (tmp_path / "mountinfo").write_text("")
    with pytest.raises(NotDelegated, match="no control groups of version 2"):
        delegated(tmp_path)
