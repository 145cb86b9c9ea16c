"""The shipped runner: unpacked once, never used unless it is the pinned one, never older than its sources."""

from __future__ import annotations

import importlib.util
import lzma
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest

from runloop.bundle.runner import RunnerError, read_pin, unpack
from runloop.digest import blob_digest
from runloop.errors import FailedError, NotFoundError

SHIPPED = Path(__file__).parents[3] / "sdk" / "runner"
COMPONENT = b"\0asm\x0d\0\1\0" + b"x" * 100


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    folder = tmp_path / "runner"
    folder.mkdir()
    (folder / "runner.wasm.xz").write_bytes(lzma.compress(COMPONENT))
    write_pin(folder, COMPONENT)
    return folder


def write_pin(folder: Path, component: bytes, **changes: object) -> None:
    values = {
        "blake3": blob_digest(component),
        "sha256": sha256(component).hexdigest(),
        "size": len(component),
        "componentize_py": "0",
        "inputs_digest": "0" * 64,
        **changes,
    }
    lines = [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in values.items()]
    (folder / "runner.toml").write_text("\n".join(lines))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"generator_{path.parent.name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("I2.sandbox.3")
def test_the_shipped_runner_is_the_pinned_one() -> None:
    pin = read_pin(SHIPPED)
    component = lzma.decompress((SHIPPED / "runner.wasm.xz").read_bytes())
    assert (len(component), blob_digest(component), sha256(component).hexdigest()) == (
        pin.size,
        pin.blake3,
        pin.sha256,
    )
    assert component.startswith(b"\0asm\x0d\0\1\0")


def test_the_shipped_runner_is_made_of_the_present_sources() -> None:
    build = load(SHIPPED / "build.py")
    pin = read_pin(SHIPPED)
    assert pin.inputs_digest == build.inputs_digest(), "run python sdk/runner/build.py"
    assert pin.componentize_py == build.COMPONENTIZE_PY


def test_the_runner_knows_nothing_of_the_checkout_that_built_it() -> None:
    component = lzma.decompress((SHIPPED / "runner.wasm.xz").read_bytes())
    assert str(SHIPPED.parent.parent).encode() not in component


def test_the_runner_is_unpacked_once_and_found_again(shipped: Path, tmp_path: Path) -> None:
    first = unpack(shipped, tmp_path / "cache")
    assert first.read_bytes() == COMPONENT
    made = first.stat().st_mtime_ns
    assert unpack(shipped, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == [first.name]


@pytest.mark.parametrize("damage", [b"", b"short", COMPONENT[:-1] + b"y"])
def test_an_altered_copy_in_the_cache_is_made_anew(shipped: Path, tmp_path: Path, damage: bytes) -> None:
    path = unpack(shipped, tmp_path / "cache")
    path.write_bytes(damage)
    assert unpack(shipped, tmp_path / "cache").read_bytes() == COMPONENT


@pytest.mark.requirement("I2.sandbox.3")
@pytest.mark.parametrize(
    "packed",
    [
        lzma.compress(COMPONENT[:-1] + b"y"),
        lzma.compress(COMPONENT + b"more"),
        lzma.compress(COMPONENT[:5]),
        lzma.compress(COMPONENT)[:-9],
        b"not xz",
        b"",
    ],
)
def test_a_packed_runner_that_is_not_the_pinned_one_is_refused(
    shipped: Path, tmp_path: Path, packed: bytes
) -> None:
    (shipped / "runner.wasm.xz").write_bytes(packed)
    with pytest.raises(RunnerError):
        unpack(shipped, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_packed_runner_larger_than_its_pin_is_not_unpacked_further(shipped: Path, tmp_path: Path) -> None:
    (shipped / "runner.wasm.xz").write_bytes(lzma.compress(bytes(50_000_000)))
    with pytest.raises(RunnerError, match="does not hold"):
        unpack(shipped, tmp_path / "cache")


def test_a_missing_part_is_not_found(shipped: Path, tmp_path: Path) -> None:
    (shipped / "runner.wasm.xz").unlink()
    with pytest.raises(NotFoundError):
        unpack(shipped, tmp_path / "cache")
    (shipped / "runner.toml").unlink()
    with pytest.raises(NotFoundError):
        read_pin(shipped)


@pytest.mark.parametrize("text", ["", "size = 3", "not toml", "\x00"])
def test_a_pin_that_cannot_be_read_is_refused(shipped: Path, text: str) -> None:
    (shipped / "runner.toml").write_text(text)
    with pytest.raises(RunnerError):
        read_pin(shipped)


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_a_pin_of_a_senseless_size_is_refused(shipped: Path, size: int) -> None:
    write_pin(shipped, COMPONENT, size=size)
    with pytest.raises(RunnerError):
        read_pin(shipped)


def test_a_cache_that_cannot_be_written_is_said(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(FailedError, match="cannot be unpacked into"):
        unpack(shipped, tmp_path / "cache")
