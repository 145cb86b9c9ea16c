"""Folders of strangers, as in ./agents of a cloned repository: looked at with every list, and harmless."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runloop.bundle.archive import unpack
from runloopd.runtime.registry import Registry
from tests.bundles import Built, build

HUGE = "0x" + "f" * 5_000


@pytest.fixture
def good(tmp_path: Path) -> Built:
    made = build(name="good")
    for name, data in unpack(made.data).files.items():
        (tmp_path / "good" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "good" / name).write_bytes(data)
    return made


def config(front: str) -> Callable[[Path], object]:
    text = f'name = "evil"\nversion = "1.0.0"\nprompt = "p"\n{front}\n'
    return lambda place: (place / "evil.agent.toml").write_text(text)


def folder(manifest: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        (place / "evil").mkdir()
        manifest(place / "evil" / "manifest.toml")

    return make


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


@pytest.mark.parametrize(
    "evil",
    [
        config(f"turns = {HUGE}"),
        config("model = 1979-05-27"),
        config("tool = 7"),
        config("tools = [[]]"),
        folder(lambda path: path.write_text(f"name = {HUGE}\n")),
        folder(lambda path: path.symlink_to("/dev/zero")),
        folder(os.mkfifo),
        folder(sparse),
        folder(lambda path: path.mkdir()),
        lambda place: os.mkfifo(place / "evil.agent.toml"),
        lambda place: sparse(place / "evil.agent.toml"),
        lambda place: (place / "evil.agent.md").symlink_to("/dev/zero"),
        lambda place: (place / "evil").symlink_to("evil"),
    ],
    ids=["number", "date", "tool", "list", "manifest", "device", "fifo", "sparse", "dir", "config fifo",
         "config sparse", "config device", "loop"],
)  # fmt: skip
def test_nothing_that_lies_in_a_folder_stops_the_other_agents(
    tmp_path: Path, good: Built, evil: Callable[[Path], object]
) -> None:
    evil(tmp_path)
    registry = Registry([tmp_path], pins={}, runners={"python": "aa" * 32}, allow_unsigned=True)
    assert [agent.manifest.name for agent in registry.list()] == ["good"]
    assert registry.resolve("agent:good").bundle_digest == good.digest
    assert [one for one in registry.refused() if "good" in one.name] == []
