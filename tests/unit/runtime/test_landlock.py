"""Landlock in a guest's process: no name leads to a file, for each of its threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runloopd.runtime import landlock

pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock, or it is off")

THREAD = """
import errno, os, threading
from runloopd.runtime import hardening, landlock

def tries():
    for what in (
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open("/dev/shm/runloop-landlock", os.O_CREAT | os.O_WRONLY),
        lambda: os.listdir("/proc/self"),
        lambda: os.execv("/bin/true", ["true"]),
    ):
        try:
            what()
            print("done")
        except OSError as error:
            print(errno.errorcode[error.errno])

def guest():
    layers = hardening.harden_thread(landlocked={version})
    print(",".join(layers))
    tries()

held = open("/etc/hostname")
thread = threading.Thread(target=guest)
thread.start()
thread.join()
os.listdir("/proc/self")  # another thread is not concerned
"""


def said(version: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", THREAD.replace("{version}", str(version))],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.requirement("S1")
def test_a_thread_behind_landlock_opens_makes_lists_and_executes_nothing() -> None:
    assert said(landlock.version()) == ["capabilities,no_new_privs,landlock", *["EACCES"] * 4]


def test_what_an_older_kernel_speaks_is_enough() -> None:
    assert said(1) == ["capabilities,no_new_privs,landlock", *["EACCES"] * 4]
