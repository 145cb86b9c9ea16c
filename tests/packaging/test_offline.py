"""The build takes everything from what was fetched and locked before: without a network it makes the same."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.tools import PACKAGING, ROOT, run

OFFLINE = ("unshare", "--map-root-user", "--net")


@pytest.fixture(scope="module")
def offline() -> tuple[str, ...]:
    if run(*OFFLINE, "true").returncode != 0:
        pytest.skip("no network namespaces here: unshare --map-root-user --net")
    return OFFLINE


@pytest.mark.requirement("M7")
def test_the_wheel_is_built_without_a_network(offline: tuple[str, ...], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reach = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        assert run(sys.executable, "-c", reach).returncode == 0
        assert run(*offline, sys.executable, "-c", reach).returncode != 0  # nothing to come from, indeed
    tree = tmp_path / "tree"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--", ".", ":!tests", ":!docs"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(names.stdout).split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    words = ("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "made")
    done = run(*offline, sys.executable, *words, cwd=tree, RUNLOOP_NATIVE="0", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "made").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        assert {"runloopd/daemon.py", "runloop/client.py"} <= set(archive.namelist())


@pytest.mark.requirement("M7")
def test_the_package_is_built_where_there_is_no_network_and_asks_no_index() -> None:
    """packaging/tests/all builds it so, whole; here, that nobody took the words away."""
    build = (PACKAGING / "deb/build").read_text()
    fetching, _, building = build.partition("# From here on nothing comes from outside")
    assert 'pip[@]}" download' in fetching
    assert not re.search(r"\bdownload\b|\bcurl\b|\bwget\b|git clone", building)
    for command in ("dpkg-buildpackage --build=binary", '/tools/bin/pip" wheel'):
        (line,) = [line for line in building.splitlines() if command in line]
        assert '"${offline[@]}"' in line.partition(command)[0]
    rules = (PACKAGING / "deb/debian/rules").read_text()
    assert rules.count("pip install") == 1
    assert "pip install --quiet --no-index --no-deps" in rules
    assert "--require-hashes -r debian/lock.txt" in rules
