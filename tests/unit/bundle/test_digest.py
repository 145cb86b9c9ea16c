"""One digest names every file of a bundle; what is not a plain file is no part of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle import digest as subject
from runloop.bundle.digest import BundleError, bundle_digest, read_bundle
from runloop.errors import NotFoundError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = tmp_path / "agent"
    (root / "schemas").mkdir(parents=True)
    (root / "manifest.toml").write_text("name")
    (root / "schemas" / "a.json").write_bytes(b"{}")
    (root / "ünïcode.txt").write_text("ä")
    return root


def test_every_file_is_read_by_its_path(bundle: Path) -> None:
    assert read_bundle(bundle) == {
        "manifest.toml": b"name",
        "schemas/a.json": b"{}",
        "ünïcode.txt": "ä".encode(),
    }


def test_the_digest_has_the_documented_framing() -> None:
    framed = b"".join(
        len(part).to_bytes(8, "big") + part for part in (b"runloop bundle v0", b"a", b"1", "ä".encode(), b"")
    )
    assert bundle_digest({"ä": b"", "a": b"1"}) == blake3(framed).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"a": b"1", "b": b"3"},
        {"a": b"1"},
        {"a": b"1", "b": b"2", "c": b""},
        {"a": b"1", "B": b"2"},
        {"ab": b"", "12": b""},
        {"a": b"12", "b": b""},
    ],
)
def test_any_change_of_a_path_or_a_byte_changes_the_digest(change: dict[str, bytes]) -> None:
    assert bundle_digest(change) != bundle_digest({"a": b"1", "b": b"2"})


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.binary(max_size=5), max_size=4))
def test_the_order_of_files_does_not_matter(files: dict[str, bytes]) -> None:
    assert bundle_digest(dict(reversed(files.items()))) == bundle_digest(files)


@given(
    st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=3),
)
def test_two_different_bundles_never_share_a_digest(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (bundle_digest(one) == bundle_digest(other)) == (one == other)


def test_what_python_leaves_behind_is_no_part_of_a_bundle(bundle: Path) -> None:
    before = bundle_digest(read_bundle(bundle))
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "agent.cpython-311.pyc").write_bytes(b"x")
    assert bundle_digest(read_bundle(bundle)) == before


@pytest.mark.parametrize("kind", ["link", "folder link", "dangling link", "hard link", "fifo"])
def test_links_and_special_files_are_refused(bundle: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "secret"
    outside.write_text("secret")
    target = bundle / "x"
    match kind:
        case "link":
            target.symlink_to(outside)
        case "folder link":
            target.symlink_to(tmp_path)
        case "dangling link":
            target.symlink_to(tmp_path / "nowhere")
        case "hard link":
            target.hardlink_to(outside)
        case "fifo":
            os.mkfifo(target)
    with pytest.raises(BundleError, match="x is"):
        read_bundle(bundle)


def test_a_bundle_that_is_itself_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "link")


def test_a_bundle_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u202eb", "a\\b", "x" * 241])
def test_names_that_could_deceive_are_refused(bundle: Path, name: str) -> None:
    try:
        (bundle / name).write_text("")
    except OSError:
        (bundle / "d").mkdir()
        (bundle / "d" / name[:250]).write_text("")
    with pytest.raises(BundleError, match="not allowed"):
        read_bundle(bundle)


def test_a_name_that_is_not_utf8_is_refused(bundle: Path) -> None:
    Path(os.fsdecode(os.fsencode(bundle) + b"/\xff")).write_text("")
    with pytest.raises(BundleError):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("bound", "value"), [("MAX_FILES", 2), ("MAX_FILE_BYTES", 3), ("MAX_BUNDLE_BYTES", 5)]
)
def test_bounds_are_kept(bundle: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    monkeypatch.setattr(subject, bound, value)
    with pytest.raises(BundleError):
        read_bundle(bundle)


def test_a_bundle_that_is_too_deep_is_refused(bundle: Path) -> None:
    deep = bundle.joinpath(*["d"] * 10)
    deep.mkdir(parents=True)
    with pytest.raises(BundleError, match="deeper"):
        read_bundle(bundle)


def test_a_file_that_cannot_be_read_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subject.os, "stat", refuse)
    with pytest.raises(BundleError, match="Permission denied"):
        read_bundle(bundle)
