"""The runner components that execute source, one per language: shipped packed, unpacked once, checked always.

Knows: where its pin is written and how it is packed. Does not know: how it is compiled or run (the runtime).
"""

from __future__ import annotations

import lzma
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

from runloop.digest import blob_digest
from runloop.errors import DivergenceError, FailedError, NotFoundError

__all__ = ["RUNNERS", "RunnerError", "RunnerPin", "pack", "read_pin", "unpack"]

RUNNERS: Mapping[str, Literal["runner", "runner-js"]] = {
    "python": "runner",
    "javascript": "runner-js",
}
"""Language -> what its runner is called among what is shipped (``runloop.config.shipped``)."""

MAX_RUNNER_BYTES = 64 * 1024 * 1024


class RunnerError(DivergenceError):
    """The shipped runner is not the one its pin names."""

    code: ClassVar[str] = "runner.altered"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerPin:
    """``runner.toml``: which component belongs to this build."""

    blake3: str
    """Digest of the unpacked component: ``component_digest`` of every agent of its language."""
    sha256: str
    size: int
    """Bytes of the unpacked component."""
    inputs_digest: str
    componentize_py: str | None = None
    """Version of the generator, of a runner for Python."""
    componentize_qjs: str | None = None
    """The same, of a runner for JavaScript."""


def read_pin(folder: Path) -> RunnerPin:
    """The pin beside the packed runner in ``folder``; raises NotFoundError or :class:`RunnerError`."""
    path = folder / "runner.toml"
    try:
        pin = RunnerPin(**tomllib.loads(path.read_text()))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the runner's pin {path} is missing", hint="install runloop again", code="runner.missing"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise RunnerError(f"{path} is not a runner's pin: {error}", hint="install runloop again") from error
    if not 0 < pin.size <= MAX_RUNNER_BYTES:
        raise RunnerError(f"{path} names a runner of {pin.size} bytes", hint="install runloop again")
    return pin


def pack(folder: Path, component: bytes, *, made_by: str, generator: str, version: str, inputs: str) -> int:
    """Write a fresh component and its pin into ``folder``; returns the size of the packed file.

    ``made_by`` heads the pin; ``generator`` is the field of :class:`RunnerPin` that has its ``version``;
    ``inputs`` is the digest of what it was made from.
    """
    packed = lzma.compress(component, preset=9 | lzma.PRESET_EXTREME)
    (folder / "runner.wasm.xz").write_bytes(packed)
    (folder / "runner.toml").write_text(
        f"# {made_by}\n"
        f'blake3 = "{blob_digest(component)}"\n'
        f'sha256 = "{sha256(component).hexdigest()}"\n'
        f"size = {len(component)}\n"
        f'{generator} = "{version}"\n'
        f'inputs_digest = "{inputs}"\n'
    )
    return len(packed)


def unpack(folder: Path, cache: Path) -> Path:
    """The path of the unpacked component in ``cache``, its bytes checked against the pin in this very call.

    Unpacks when it is absent or altered. Raises :class:`RunnerError` when the packed file does not match its
    pin, :class:`NotFoundError` when it is missing, :class:`FailedError` when the cache cannot be written.
    """
    pin = read_pin(folder)
    target = cache / f"runner-{pin.blake3[:16]}.wasm"
    try:
        if target.stat().st_size == pin.size and blob_digest(target.read_bytes()) == pin.blake3:
            return target
    except OSError:
        pass  # absent or unreadable: made anew below
    component = _component(folder / "runner.wasm.xz", pin)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _write(target, component)
    except OSError as error:
        raise FailedError(
            f"the runner cannot be unpacked into {cache}: {error.strerror}",
            hint="make the cache directory writable",
            code="runner.cache",
        ) from error
    return target


def _component(packed: Path, pin: RunnerPin) -> bytes:
    try:
        with lzma.open(packed) as file:
            component = file.read(pin.size + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the runner {packed} is missing", hint="install runloop again", code="runner.missing"
        ) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise RunnerError(f"{packed} cannot be unpacked: {error}", hint="install runloop again") from error
    if len(component) != pin.size or blob_digest(component) != pin.blake3:
        raise RunnerError(
            f"{packed} does not hold the component its pin names",
            hint="install runloop again",
            expected=pin.blake3,
            actual=blob_digest(component),
        )
    return component


def _write(target: Path, data: bytes) -> None:
    """All or nothing, also for a second process that does the same."""
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=".runner-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
