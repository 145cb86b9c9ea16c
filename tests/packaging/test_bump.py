"""One version, everywhere it stands; a release writes it with one command."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from runloop import __version__
from tests.packaging.tools import PACKAGING, ROOT

DAY = "2027-03-05"


@pytest.fixture(scope="module")
def bump() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bump", PACKAGING / "release" / "bump.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(bump: ModuleType, tmp_path: Path) -> Path:
    """The files with a version in them, and something to release."""
    for name in (*bump._PLACES, bump.CHANGELOG):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / bump.CHANGELOG).read_text()
    news = "## Unreleased\n\n- Something new.\n"
    (tmp_path / bump.CHANGELOG).write_text(re.sub(r"## Unreleased\n\n?", news, text, count=1))
    return tmp_path


def manual(tree: Path, version: str) -> None:
    """What packaging/man/generate.py would do."""
    page = tree / "packaging/man/man1/rlp.1"
    page.write_text(re.sub(r'"Runloop [^"]*"', f'"Runloop {version}"', page.read_text(), count=1))


def test_this_tree_says_one_version_everywhere(bump: ModuleType) -> None:
    assert bump.check(ROOT) == __version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


def test_a_new_version_is_written_everywhere_and_dated(bump: ModuleType, tree: Path) -> None:
    bump.bump(tree, "7.8.9", DAY)
    manual(tree, "7.8.9")
    assert bump.check(tree, "7.8.9", DAY) == "7.8.9"
    assert tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"] == "7.8.9"
    top = (tree / bump.DEBIAN_CHANGELOG).read_text()
    assert top.startswith("runloop (7.8.9~deb12u1) bookworm; urgency=medium\n\n  * ")
    assert "  Fri, 05 Mar 2027 12:00:00 +0000\n" in top
    assert f"runloop ({__version__}~deb12u1) " in top  # the past stays
    changes = (tree / "CHANGELOG.md").read_text()
    assert f"## Unreleased\n\n## 7.8.9 — {DAY}\n\n- Something new.\n" in changes


def test_the_first_release_dates_the_version_that_is_there(bump: ModuleType, tree: Path) -> None:
    stanzas = (tree / bump.DEBIAN_CHANGELOG).read_text().count("\n -- ")
    bump.bump(tree, __version__, DAY)
    assert bump.check(tree, __version__, DAY) == __version__
    assert (tree / bump.DEBIAN_CHANGELOG).read_text().count("\n -- ") == stanzas
    bump.bump(tree, __version__, "2027-03-06")  # and again, a day later
    assert bump.check(tree, __version__, "2027-03-06") == __version__
    assert (tree / "CHANGELOG.md").read_text().count(f"## {__version__} — ") == 1


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("0.0.1", "versions only rise"),
        ("1.0", "write X.Y.Z"),
        ("1.2.3-rc.1", "write X.Y.Z"),
        ("01.2.3", "write X.Y.Z"),
        ('1.2.3"\n', "write X.Y.Z"),
    ],
)
def test_what_is_no_later_version_is_refused_and_nothing_is_written(
    bump: ModuleType, tree: Path, version: str, why: str
) -> None:
    before = {name: (tree / name).read_bytes() for name in (*bump._PLACES, bump.CHANGELOG)}
    with pytest.raises(bump.BumpError, match=why):
        bump.bump(tree, version, DAY)
    assert before == {name: (tree / name).read_bytes() for name in before}


def test_a_release_without_news_is_refused(bump: ModuleType, tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.0.1 — 2026-01-01\n\n- Old.\n")
    with pytest.raises(bump.BumpError, match="say what a user notices"):
        bump.bump(tree, "7.8.9", DAY)


@pytest.mark.parametrize(
    "name",
    [
        "pyproject.toml",
        "sdk/python/runloop/__init__.py",
        "packaging/deb/debian/changelog",
        "packaging/man/man1/rlp.1",
    ],
)
def test_a_place_that_was_forgotten_is_named(bump: ModuleType, tree: Path, name: str) -> None:
    path = tree / name
    path.write_text(path.read_text().replace(__version__, "9.9.9", 1))
    with pytest.raises(bump.BumpError, match=f"{re.escape(name)} says 9.9.9"):
        bump.check(tree)


def test_a_release_of_another_day_or_version_is_told(bump: ModuleType, tree: Path) -> None:
    with pytest.raises(bump.BumpError, match="has no heading"):
        bump.check(tree, __version__)
    bump.bump(tree, __version__, DAY)
    with pytest.raises(bump.BumpError, match=f"dates {re.escape(__version__)} {DAY}"):
        bump.check(tree, __version__, "2027-03-06")
    with pytest.raises(bump.BumpError, match=re.escape(f"this tree is {__version__}, not 9.9.9")):
        bump.check(tree, "9.9.9")
