"""Where bundles lie: whole or not at all, and nothing but what was put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.bundle.archive import Package, unpack
from runloop.bundle.digest import bundle_digest, read_bundle
from runloop.errors import DivergenceError, FailedError, NotFoundError
from runloopd.runtime.store import Store, attestations_of
from tests.bundles import build


@pytest.fixture
def package() -> Package:
    return unpack(build(files={"schemas/a/b.json": b"{}"}).data)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "bundles")


def test_a_staged_bundle_is_read_back_to_the_byte_and_is_not_kept(store: Store, package: Package) -> None:
    folder = store.stage(package)
    assert read_bundle(folder) == package.files
    assert store.read_staged(package.bundle_digest) == package
    assert not store.holds(package.bundle_digest)


def test_keeping_moves_it_under_its_digest(store: Store, package: Package) -> None:
    store.stage(package)
    assert store.keep(package.bundle_digest)
    assert store.holds(package.bundle_digest)
    assert bundle_digest(read_bundle(store.kept / package.bundle_digest)) == package.bundle_digest
    assert not store.staged(package.bundle_digest).exists()


def test_a_move_that_led_nowhere_is_undone(store: Store, package: Package) -> None:
    store.stage(package)
    store.keep(package.bundle_digest)
    store.unkeep(package.bundle_digest)
    assert not store.holds(package.bundle_digest)
    assert store.read_staged(package.bundle_digest) == package


def test_killed_after_the_move_the_staged_package_is_still_found(store: Store, package: Package) -> None:
    store.stage(package)
    store.keep(package.bundle_digest)
    assert store.read_staged(package.bundle_digest) == package


def test_bytes_that_are_kept_already_are_not_touched(store: Store, package: Package) -> None:
    store.stage(package)
    store.keep(package.bundle_digest)
    before = (store.kept / package.bundle_digest).stat().st_ino
    store.stage(package)
    assert not store.keep(package.bundle_digest)
    assert (store.kept / package.bundle_digest).stat().st_ino == before


def test_kept_bytes_that_were_damaged_are_replaced(store: Store, package: Package) -> None:
    store.stage(package)
    store.keep(package.bundle_digest)
    (store.kept / package.bundle_digest / "agent.py").write_text("evil = True\n")
    assert not store.holds(package.bundle_digest)
    store.stage(package)
    assert store.keep(package.bundle_digest)
    assert store.holds(package.bundle_digest)


@pytest.mark.parametrize("name", ["agent.py", "policy.caps", "tools.json", "manifest.toml"])
def test_a_staged_file_that_was_altered_is_not_installed(store: Store, package: Package, name: str) -> None:
    (store.stage(package) / name).write_bytes(package.files[name] + b"\n")
    with pytest.raises(DivergenceError, match="altered while it waited"):
        store.read_staged(package.bundle_digest)


def test_a_file_added_to_a_staged_bundle_is_noticed(store: Store, package: Package) -> None:
    (store.stage(package) / "extra.py").write_text("evil = True\n")
    with pytest.raises(DivergenceError):
        store.read_staged(package.bundle_digest)


def test_altered_attestations_are_noticed(store: Store, package: Package) -> None:
    lines = store.stage(package).parent / "attestations.jsonl"
    lines.write_bytes(b"{}\n" + lines.read_bytes())
    with pytest.raises(DivergenceError):
        store.read_staged(package.bundle_digest)


def test_what_is_not_staged_is_not_found(store: Store, package: Package) -> None:
    with pytest.raises(NotFoundError):
        store.read_staged(package.bundle_digest)
    store.stage(package)
    store.discard_staged(package.bundle_digest)
    with pytest.raises(NotFoundError):
        store.read_staged(package.bundle_digest)


@pytest.mark.parametrize("name", ["../../etc", "a" * 63, "A" * 64, "", "a" * 64 + "/x"])
def test_only_a_digest_becomes_a_name(store: Store, name: str) -> None:
    for use in (store.staged, store.holds, store.keep, store.discard_staged, store.unkeep):
        with pytest.raises(ValueError, match="not a bundle digest"):
            use(name)


def test_a_sweep_removes_what_nobody_is_asked_about(store: Store, package: Package) -> None:
    other = unpack(build("2.0.0").data)
    store.stage(package)
    store.stage(other)
    (store.kept / ".new-half").mkdir()
    (store.kept / ".new-half" / "agent.py").write_text("half")
    store.stage(unpack(build("3.0.0").data))
    store.keep(unpack(build("3.0.0").data).bundle_digest)
    swept = store.sweep({package.bundle_digest})
    assert set(swept) >= {".new-half", other.bundle_digest}
    assert store.read_staged(package.bundle_digest) == package
    assert store.holds(unpack(build("3.0.0").data).bundle_digest)


def test_a_sweep_follows_no_link(store: Store, package: Package, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    store.stage(package)
    (store.kept / ".new-link").symlink_to(outside)
    store.sweep(())
    assert (outside / "precious").exists()
    assert not (store.kept / ".new-link").is_symlink()


def test_without_room_nothing_is_left_behind(
    store: Store, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.kept.mkdir()

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runloopd.runtime.store.os.fsync", full)
    with pytest.raises(FailedError, match="No space left"):
        store.stage(package)
    assert list(store.kept.iterdir()) == []


def test_attestations_are_the_lines_of_the_file(package: Package) -> None:
    lines = attestations_of(package).splitlines()
    assert len(lines) == len(package.envelopes) == 2
