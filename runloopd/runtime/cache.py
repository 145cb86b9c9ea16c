"""Compiled components on disk, authenticated; handed out as sealed memory that nobody can change any more.

Knows: the key of an entry, its file form, the MAC, who may own the directory. Does not know: how to compile
(the callback given to :meth:`CompiledCache.obtain` does) or wasmtime.

An entry is ``magic · MAC · compiled form``. The MAC (BLAKE3, keyed) covers the entry's key and the compiled
form, and is checked on the sealed copy that will be mapped, so check and map see the same bytes. An entry
that is altered, truncated, owned by somebody else or of another engine is not an entry: it is compiled again.
Nothing else is ever loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from blake3 import blake3

from runloop.digest import framed
from runloop.errors import RefusedError
from runloopd.runtime.engine import COMPILE_LIMITS, cache_tag

__all__ = ["CacheRefused", "CompiledCache", "seal", "sealed_copy"]

_MAGIC = b"RLCWASM1"
_MAC_BYTES = 32
_HEAD = len(_MAGIC) + _MAC_BYTES
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class CacheRefused(RefusedError):
    """The cache directory is open to others; compiled code in it could be anybody's."""

    code = "cache.insecure"


def seal(memfd: int) -> None:
    """Make the content of ``memfd`` immutable for ever."""
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)


def sealed_copy(data: bytes | memoryview | mmap.mmap) -> int:
    """An anonymous file with exactly these bytes, sealed. The caller closes it."""
    memfd = os.memfd_create("runloop", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                at += os.write(memfd, view[at:])
        seal(memfd)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


class CompiledCache:
    """The directory of compiled forms of one user."""

    def __init__(self, directory: Path, mac_key: bytes) -> None:
        """``mac_key``: 32 bytes that no agent and no API user ever sees (``keys/cache.key``)."""
        if len(mac_key) != blake3.key_size:
            raise ValueError(f"the MAC key has {len(mac_key)} bytes, not {blake3.key_size}")
        self._directory = directory
        self._mac_key = mac_key

    def key(self, component_digest: str) -> str:
        """Name of the entry: the component, the engine's version and configuration, the machine."""
        return blake3(framed(bytes.fromhex(component_digest), cache_tag())).hexdigest()

    def path(self, component_digest: str) -> Path:
        """Where the entry of a component is, or would be."""
        return self._directory / f"{self.key(component_digest)}.cwasm"

    async def obtain(
        self,
        component_digest: str,
        compile_it: Callable[[], Awaitable[bytes]],
        *,
        in_thread: Callable[..., Awaitable[object]],
    ) -> int:
        """The compiled form as a sealed memfd, from the cache or else from ``compile_it``.

        Raises :class:`CacheRefused` when the directory belongs to somebody else or others may write in it.
        """
        found = await in_thread(self.load, component_digest)
        if isinstance(found, int):
            return found
        compiled = await compile_it()
        stored = await in_thread(self.store, component_digest, compiled)
        assert isinstance(stored, int)
        return stored

    def load(self, component_digest: str) -> int | None:
        """The authenticated entry as a sealed memfd; None when there is none that can be trusted."""
        self._check_directory()
        try:
            # O_NONBLOCK: somebody's FIFO under this name must not hold us.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self.path(component_digest), flags)
        except OSError:
            return None
        try:
            facts = os.fstat(fd)
            if (
                not stat.S_ISREG(facts.st_mode)
                or facts.st_uid != os.geteuid()
                or facts.st_mode & 0o077
                or not _HEAD < facts.st_size <= COMPILE_LIMITS.cwasm_bytes + _HEAD
            ):
                return None
            head = os.read(fd, _HEAD)
            memfd = os.memfd_create("runloop", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                left = facts.st_size - _HEAD
                while left and (copied := os.sendfile(memfd, fd, None, left)):
                    left -= copied
                seal(memfd)
                if (
                    head[: len(_MAGIC)] == _MAGIC
                    and self._mac(component_digest, memfd) == head[len(_MAGIC) :]
                ):
                    return memfd
            except (OSError, ValueError):
                pass
            os.close(memfd)
        finally:
            os.close(fd)
        return None

    def store(self, component_digest: str, compiled: bytes) -> int:
        """Write an entry and return its sealed copy. A full disk costs the entry, never the answer."""
        self._check_directory()
        memfd = sealed_copy(compiled)
        mac = self._mac(component_digest, memfd)
        path = self.path(component_digest)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with contextlib.suppress(FileNotFoundError):
                scratch.unlink()
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(_MAGIC + mac)
                file.write(compiled)
                file.flush()
                os.fsync(fd)
            if path.is_dir():
                path.rmdir()
            scratch.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink()
        return memfd

    def _mac(self, component_digest: str, memfd: int) -> bytes:
        length = os.fstat(memfd).st_size
        mac = blake3(key=self._mac_key)
        mac.update(framed(self.key(component_digest).encode()) + length.to_bytes(8, "big"))
        with mmap.mmap(memfd, length, prot=mmap.PROT_READ) as content:
            mac.update(content)
        return mac.digest()

    def _check_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self._directory.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise CacheRefused(
                f"{self._directory} is not a directory that only you can use",
                hint=f"make it yours with 'chmod 700 {self._directory}', or remove it",
            )
