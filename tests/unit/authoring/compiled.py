"""What the tests of the compiled languages share: marks, scaffolded folders, bytes from many places."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runloop.authoring.scaffold import scaffold
from runloop.authoring.toolchains import Toolchain
from runloop.authoring.toolchains.c import CToolchain
from runloop.authoring.toolchains.rust import RustToolchain

rust = pytest.mark.skipif(
    bool(RustToolchain().missing()), reason="needs Debian: rustc cargo libstd-rust-dev-wasm32 lld"
)
c = pytest.mark.skipif(bool(CToolchain().missing()), reason="needs Debian: clang lld")


def scaffolded(place: Path, language: str, name: str = "meter") -> Path:
    scaffold(name, language, place / name)
    return place / name


def blocks_of_the_howto(kind: str) -> list[str]:
    """What docs/howto/agents-in-rust-and-c.md shows in one language."""
    page = Path(__file__).parents[3] / "docs" / "howto" / "agents-in-rust-and-c.md"
    found = re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return list(found)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def built(toolchain: Toolchain, folder: Path, work: Path) -> bytes:
    work.mkdir(parents=True)
    made = toolchain.build(folder, work)
    assert list(made) == ["agent.wasm"]
    return made["agent.wasm"]


@contextmanager
def surroundings(mask: int, **variables: str) -> Iterator[None]:
    """Another umask and other variables, as another author has them."""
    before, old_mask = dict(os.environ), os.umask(mask)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.umask(old_mask)
        os.environ.clear()
        os.environ.update(before)


def built_twice(toolchain: Toolchain, folder: Path, place: Path) -> set[str]:
    """Digests of the builds of one source: two folders, two scratch folders, two environments."""
    other = place / "a rather longer name" / "ünïcode" / "agent"
    other.parent.mkdir(parents=True)
    shutil.copytree(folder, other)
    for file in other.rglob("*"):
        os.utime(file, (1, 1))
    with surroundings(0o022):
        first = built(toolchain, folder, place / "w1")
    with surroundings(
        0o077,
        TZ="Pacific/Kiritimati",
        LANG="tr_TR.UTF-8",
        LC_ALL="C",
        PYTHONHASHSEED="7",
        RUSTFLAGS="-C opt-level=0",
        CFLAGS="-O0",
        CPATH=str(place),
        CARGO_TARGET_DIR=str(place / "elsewhere"),
        CARGO_BUILD_JOBS="1",
        CARGO_PROFILE_RELEASE_OPT_LEVEL="0",
        CCC_OVERRIDE_OPTIONS="+-O0",
        SOURCE_DATE_EPOCH="99",
        RUST_BACKTRACE="1",
    ):
        second = built(toolchain, other, place / "w" / "another" / "two")
    assert not (place / "elsewhere").exists()
    for data in (first, second):
        assert str(place).encode() not in data
        assert b"/root/" not in data and b"/home/" not in data
    return {hashlib.sha256(data).hexdigest() for data in (first, second)}
