"""What the package and its scripts are made of fits together; Debian's own programs judge the units."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.tools import PACKAGING, ROOT, needs, run, scripts

DEBIAN = PACKAGING / "deb" / "debian"
UNITS = ("runloop.runloop.service", "runloop.runloop.socket")
DEPENDS = {
    "Depends": {"bubblewrap", "libc6", "libgcc-s1", "tzdata"},
    "Recommends": {"git"},
    "Suggests": {"podman"},
}
"""Debian's own, and no library of Python: those are inside, locked by hash."""


def test_every_script_parses() -> None:
    found = scripts()
    assert {"release", "seal", "verify", "build", "publish", "smoke", "boot"} <= {path.name for path in found}
    faults = {}
    for path in found:
        shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
        done = run(shell, "-n", path)
        # Maintainer scripts are made executable by debhelper.
        if done.returncode or (path.parent != DEBIAN and not path.stat().st_mode & 0o100):
            faults[path.name] = done.stderr or "not executable"
    assert faults == {}


def test_every_script_stops_at_mistakes_and_says_what_it_is() -> None:
    for path in scripts():
        lines = path.read_text().splitlines()
        # What judges each step itself goes on; so does what a person sits in front of (the demo's welcome).
        stops = any(re.match(r"set -(eu|euo pipefail|e|uo pipefail)$", line) for line in lines[:60])
        assert stops or path.parent.name == "demo", path
        if path.parent != DEBIAN:
            assert lines[1].startswith("# "), f"{path} has no head comment"


def test_no_check_of_a_script_is_one_that_cannot_fail() -> None:
    """A shell with ``set -e`` takes no notice of ``! command``: what must fail is asked with ``if``."""
    hollow = [
        f"{path.name}:{number}"
        for path in scripts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.match(r"\s*! ", line) and not line.rstrip().endswith(("&&", "\\"))
    ]
    assert hollow == []


def test_every_file_that_the_rules_name_is_there() -> None:
    rules = (DEBIAN / "rules").read_text().replace("\\\n", " ")
    named = {
        word
        for word in re.findall(r"(?<![\w./])(?:packaging|debian)/[\w./*-]+", rules)
        if not word.startswith(("debian/runloop/", "debian/lock.txt", "debian/copyright.whole"))
    }
    assert len(named) > 8
    missing = []
    for word in sorted(named):
        pattern = word.replace("debian/", "packaging/deb/debian/", 1) if word.startswith("debian/") else word
        if not list(ROOT.glob(pattern)):
            missing.append(word)
    assert missing == []


def test_the_package_depends_on_nothing_but_names_of_debians_own() -> None:
    text = (DEBIAN / "control").read_text().split("\n\n")[1]
    fields = dict(re.findall(r"^([A-Z][A-Za-z-]+): ((?:.|\n )*)$", text, re.MULTILINE))
    assert "Pre-Depends" not in fields
    for field, allowed in DEPENDS.items():
        names = {re.split(r"[ (:|]", item.strip())[0] for item in fields.get(field, "").split(",")}
        assert {name for name in names if not name.startswith("${")} == allowed, field


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The system's units under the names they are installed as."""
    needs("systemd-analyze", package="systemd")
    found = []
    for name in UNITS:
        unit = tmp_path / name.replace("runloop.runloop", "runloop")
        # Whether the program is installed is not what is asked here.
        unit.write_text(
            (DEBIAN / name).read_text().replace("ExecStart=/usr/bin/runloopd", "ExecStart=/bin/true")
        )
        found.append(unit)
    return found


def test_the_system_s_units_are_understood_word_by_word(units: list[Path]) -> None:
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_system_s_service_is_exposed_no_more_than_it_says(units: list[Path]) -> None:
    words = ("systemd-analyze", "security", "--offline=true", "--no-pager")
    done = run(*words, "--threshold=15", units[0])
    assert done.returncode == 0, done.stdout + done.stderr
    # And the judgement is one: without what holds it, the same unit is refused.
    units[0].write_text(units[0].read_text().replace("SystemCallFilter=", "#"))
    assert run(*words, "--threshold=15", units[0]).returncode != 0


def test_a_user_s_units_are_understood_word_by_word(tmp_path: Path) -> None:
    needs("systemd-analyze", package="systemd")
    found = []
    for path in sorted((PACKAGING / "systemd" / "user").iterdir()):
        found.append(tmp_path / path.name)
        found[-1].write_text(path.read_text().replace("ExecStart=/usr/bin/runloopd", "ExecStart=/bin/true"))
    (tmp_path / "run").mkdir(mode=0o700)
    words = ("systemd-analyze", "--user", "verify", "--man=no", "--recursive-errors=no")
    done = run(*words, *found, XDG_RUNTIME_DIR=str(tmp_path / "run"))
    assert (done.returncode, done.stderr) == (0, "")


def locked() -> dict[str, tuple[str, str, int]]:
    """Name -> version, marker and number of hashes of what is put into the package."""
    rows: dict[str, tuple[str, str, int]] = {}
    name = ""
    for line in (ROOT / "requirements" / "deb.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            spec, _, marker = line.rstrip(" \\").partition(" ; ")
            name, _, version = spec.partition("==")
            rows[canonicalize_name(name)] = (version, marker, 0)
        elif "--hash=sha256:" in line:
            version, marker, count = rows[canonicalize_name(name)]
            rows[canonicalize_name(name)] = (version, marker, count + 1)
    return rows


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_lock_holds_all_that_the_package_needs_on_either_machine(machine: str) -> None:
    here = default_environment()
    here.update(
        {
            "platform_machine": machine,
            "sys_platform": "linux",
            "python_version": "3.11",
            "platform_system": "Linux",
        }
    )
    rows = locked()
    assert all(count for _, _, count in rows.values()), "a row without a hash"
    wanted = [
        Requirement(text)
        for text in importlib.metadata.requires("runloop") or []
        if not (found := Requirement(text)).marker
        or any(found.marker.evaluate({**here, "extra": e}) for e in EXTRAS)
    ]
    seen: set[str] = set()
    missing = []
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        if name not in rows or not one.specifier.contains(rows[name][0], prereleases=True):
            missing.append(str(one))
        if name in seen or name not in rows:
            continue
        seen.add(name)
        for text in importlib.metadata.requires(one.name) or []:
            further = Requirement(text)
            if not further.marker or any(
                further.marker.evaluate({**here, "extra": extra}) for extra in ("", *one.extras)
            ):
                wanted.append(further)
    assert missing == []
    assert len(seen) > 50


EXTRAS = ("", "fast", "keyring", "vec")
"""With which requirements/deb.txt is made (Makefile, ``lock``)."""
