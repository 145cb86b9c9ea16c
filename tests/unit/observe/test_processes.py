"""What the kernel says of a process, read whatever the process calls itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.observe import processes
from runloopd.observe.processes import Process, parsed

FIELDS = ["S", "1", "2", "2", "0", "-1", "4194560", "9", "0", "0", "0", "250", "50", *["0"] * 8, "512", "9"]


def test_a_living_process_has_used_time_and_memory() -> None:
    sum(range(3_000_000))
    mine = processes.of(os.getpid())
    assert mine is not None
    assert mine.rss_bytes > 5_000_000
    assert mine.cpu_ms > 0


def test_a_process_that_is_gone_has_no_figures() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert processes.of(child.pid) is None


@pytest.mark.parametrize("name", ["guest", ") R 1 2 3", "((", "a b)c", "\x1b[31m"])
def test_the_name_of_a_process_moves_no_figure(name: str) -> None:
    stat = f"7 ({name}) {' '.join(FIELDS)}\n".encode()
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert parsed(stat) == Process(round(300 * 1_000 / tick), 512 * page)


@given(st.binary(max_size=200))
def test_anything_else_is_no_process(stat: bytes) -> None:
    found = parsed(stat)
    assert found is None or (found.cpu_ms >= 0 and found.rss_bytes >= 0)


def test_a_kernel_that_does_not_tell_gives_none(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    assert processes.of(7, tmp_path) is None
    (tmp_path / "7" / "stat").write_text("7 (guest) S 1 2")
    assert processes.of(7, tmp_path) is None
