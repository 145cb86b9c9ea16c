"""Where the bytes of installed agents lie: staged while a person is asked, kept for good afterwards.

Knows: folders by bundle digest, how a folder appears there whole or not at all, what a crash may leave
behind. Does not know: who may install what (``runtime.installer``), or which of the kept bundles is current
(``runloop.bundle.installed``). Nothing here is ever executed or loaded by being here: whoever reads a bundle
checks its digest first.

    <kept>/<bundle digest>/…                          kept: installed, or pinned by a run
    <kept>/.staged/<bundle digest>/bundle/…           waits for a person
    <kept>/.staged/<bundle digest>/attestations.jsonl
    <kept>/.new-…                                     being written
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from runloop.bundle.archive import MAX_ATTESTATIONS, Package, pack, unpack
from runloop.bundle.digest import bundle_digest, read_bundle
from runloop.bundle.signature import Envelope
from runloop.durable import sync_folder
from runloop.errors import DivergenceError, FailedError, NotFoundError, RunloopError

__all__ = ["Store", "attestations_of"]

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_ATTESTATIONS = "attestations.jsonl"


def attestations_of(package: Package) -> bytes:
    """The attestations as they lie in a bundle file: one envelope per line."""
    return b"".join(envelope.to_line() for envelope in package.envelopes)


class Store:
    """The folder of kept bundles of one home. Blocking: to be called from a thread."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._staged = kept / ".staged"

    @property
    def kept(self) -> Path:
        """Where the kept bundles lie, each in a folder named by its digest."""
        return self._kept

    def staged(self, digest: str) -> Path:
        """Folder of a staged bundle's files; it need not exist."""
        return self._staged / _checked(digest) / "bundle"

    def stage(self, package: Package) -> Path:
        """Write the package's files beside the kept ones; durable when it returns. Returns their folder.

        Raises :class:`FailedError` when they cannot be written; then nothing is left of them.
        """
        place = self._staged / _checked(package.bundle_digest)
        with self._writing():
            with self._fresh() as fresh:
                _write_tree(fresh / "bundle", package)
                _write_file(fresh / _ATTESTATIONS, attestations_of(package))
                sync_folder(fresh)
                self._staged.mkdir(mode=0o700, exist_ok=True)
                _remove(place)  # of an earlier wish for the same bytes, perhaps half gone
                fresh.rename(place)
            sync_folder(self._staged)
        return place / "bundle"

    def read_staged(self, digest: str) -> Package:
        """The staged package, every byte read and checked again.

        Raises :class:`NotFoundError` when it is not there, :class:`DivergenceError` when it is not what was
        staged.
        """
        place = self._staged / _checked(digest)
        try:
            lines = (place / _ATTESTATIONS).read_bytes().splitlines()[: MAX_ATTESTATIONS + 1]
            envelopes = [Envelope.from_line(line) for line in lines]
            files = place / "bundle"
            # Killed after the move and before the fact: the bytes are where they were going.
            folder = files if files.is_dir() else self._kept / digest
            package = unpack(pack(read_bundle(folder), envelopes))
        except FileNotFoundError as error:
            raise _gone(digest) from error
        except (OSError, RunloopError) as error:
            if isinstance(error, NotFoundError):
                raise _gone(digest) from error
            raise _altered(digest, str(error)) from error
        if package.bundle_digest != digest:
            raise _altered(digest, f"its files add up to {package.bundle_digest[:12]}")
        return package

    def keep(self, digest: str) -> bool:
        """Move a staged bundle to the kept ones; True when it was not kept before.

        A kept folder of that name whose bytes are others is replaced. The attestations stay behind until
        :meth:`discard_staged`. Raises :class:`FailedError`.
        """
        place = self._kept / _checked(digest)
        with self._writing():
            if self.holds(digest):
                return False
            _remove(place)
            self.staged(digest).rename(place)
            sync_folder(self._kept)
            return True

    def holds(self, digest: str) -> bool:
        """Whether exactly these bytes are kept."""
        try:
            return bundle_digest(read_bundle(self._kept / _checked(digest))) == digest
        except RunloopError:
            return False

    def discard_staged(self, digest: str) -> None:
        """Remove a staged bundle; what is kept under the same digest stays."""
        with contextlib.suppress(OSError):
            _remove(self._staged / _checked(digest))

    def unkeep(self, digest: str) -> None:
        """Undo :meth:`keep`: its bytes are staged again."""
        with contextlib.suppress(OSError):
            (self._kept / _checked(digest)).rename(self.staged(digest))

    def sweep(self, wanted: Collection[str]) -> list[str]:
        """Remove what a crash left behind: half-written folders, and staged bundles nobody is asked about.

        ``wanted``: digests that still wait for a person. Returns the names of what was removed.
        """
        swept: list[str] = []
        for folder in (*_inside(self._kept), *_inside(self._staged)):
            leftover = folder.name.startswith(".new-") or (
                folder.parent == self._staged and folder.name not in wanted
            )
            if leftover:
                with contextlib.suppress(OSError):
                    _remove(folder)
                    swept.append(folder.name)
        return swept

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise FailedError(
                f"the bundle cannot be kept in {self._kept}: {error.strerror}",
                hint="make room, or make the directory writable; nothing was installed",
                code="agent.keep",
            ) from error

    @contextmanager
    def _fresh(self) -> Iterator[Path]:
        """A folder on the same file system that is gone again unless it was moved away."""
        fresh = Path(tempfile.mkdtemp(dir=self._kept, prefix=".new-"))
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _checked(digest: str) -> str:
    """A digest is about to be a file name: nothing else may be."""
    if not _DIGEST.match(digest):
        raise ValueError(f"{digest!r} is not a bundle digest")
    return digest


def _write_tree(root: Path, package: Package) -> None:
    """The names were judged by ``bundle.tar``: relative, plain, nothing beside them on a real disk."""
    root.mkdir(mode=0o700)
    folders = {root}
    for name, data in package.files.items():
        path = root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders.update(folder for folder in path.parents if folder.is_relative_to(root))
        _write_file(path, data)
    for folder in sorted(folders, key=lambda it: len(it.parts), reverse=True):
        sync_folder(folder)


def _write_file(path: Path, data: bytes) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _gone(digest: str) -> NotFoundError:
    return NotFoundError(
        f"the staged bundle {digest[:12]} is gone", hint="install it again", code="agent.staged"
    )


def _altered(digest: str, why: str) -> DivergenceError:
    return DivergenceError(
        f"the staged bundle {digest[:12]} was altered while it waited: {why}",
        hint="install it again from its publisher's file",
        code="agent.staged",
    )
