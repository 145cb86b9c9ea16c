"""The runner of Python agents, compiled when the image is made, put into a home when it starts.

    python3 -I compiled.py make FILE    compile for every processor of this architecture
    python3 -I compiled.py put FILE     vouch for it with this home's own, new key

Knows: that the engine's own choice would be this processor's instructions, which another may lack. Does not
know: the engine's settings, which are the product's (``make_engine``). ``put`` trusts its file like the rest
of the image.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

import wasmtime

from runloop.bundle.runner import read_pin, unpack
from runloop.config import Paths, shipped
from runloopd.authority.keyring import Keyring
from runloopd.runtime import sandbox
from runloopd.runtime.cache import CompiledCache


class AnyProcessor(wasmtime.Config):
    """The product's settings for a target by name: no instruction that only newer processors have."""

    def __init__(self) -> None:
        super().__init__()
        self.target = f"{platform.machine()}-unknown-linux-gnu"


def make(file: Path) -> None:
    """Compile the shipped runner into ``file``."""
    wasmtime.Config = AnyProcessor  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        component = unpack(shipped("runner"), Path(folder)).read_bytes()
    file.write_bytes(sandbox.compile_component(sandbox.make_engine(parallel=True), component))


def put(file: Path) -> None:
    """Store ``file`` as the compiled form of the runner in the caller's home."""
    paths = Paths.resolve(os.environ)
    paths.home.mkdir(mode=0o700, exist_ok=True)
    cache = CompiledCache(paths.cache_dir, Keyring.open(paths.keys_dir).cache_key)
    os.close(cache.store(read_pin(shipped("runner")).blake3, file.read_bytes()))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", file]:
            make(Path(file))
        case ["put", file]:
            put(Path(file))
        case _:
            raise SystemExit(__doc__)
