"""``rlp doctor`` on what bounds a run: control groups, or each process by itself; and why."""

from __future__ import annotations

from typing import Any

import pytest

from runloop import __version__
from tests.unit.rlp.conftest import Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin


@pytest.mark.requirement("I8.groups.4")
def test_doctor_says_which_of_the_two_bounds_a_run_and_why(daemon: DaemonTwin, rlp: Rlp) -> None:
    def limits(**groups: Any) -> tuple[str, str]:
        status = {"version": __version__, "pid": 1, "layers": {}, "groups": groups}
        daemon.methods["status"] = lambda: status
        row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "limits")
        return row["state"], row["found"]

    state, found = limits(hold=True, controllers=["cpu", "memory", "pids"], why="")
    assert (state, found) == ("ok", "a control group for each run, with cpu, memory, pids")
    state, found = limits(hold=True, controllers=["memory"], why="")
    assert state == "warning" and found.endswith("do not bound pids, cpu")
    state, found = limits(hold=False, controllers=[], why="2 processes share \x1b[2Jits control group")
    assert state == "ok" and "no control groups: 2 processes share \\x1b[2Jits control group" in found
