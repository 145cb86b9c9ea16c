"""A worker without capabilities: by dropping them, or because a service manager took them before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import os
from runloopd.runtime import hardening
kept = hardening._capset_call
def refused(*_):
    import ctypes; ctypes.set_errno(1); return -1
if {taken}:
    hardening.drop_capabilities()
hardening._capset_call = refused
try:
    hardening.drop_capabilities()
    print("holds", hardening._has_none())
except hardening.HardeningError as error:
    print("refused", error.errno)
"""


def outcome(*, taken: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(taken=taken)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to be taken")
@pytest.mark.requirement("S1")
def test_where_all_were_taken_before_the_call_that_takes_them_may_be_forbidden() -> None:
    assert outcome(taken=True) == "holds True"
    assert outcome(taken=False) == "refused 1"
