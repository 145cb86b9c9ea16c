"""The files of a bundle and the one digest that names them all.

Knows: which files belong to a bundle, their bounds, how the digest is framed. Does not know: what any file
means (``bundle.manifest``) or whether the digest is trusted (the registry). Everything is read once, and
digest, policy and code come from the same bytes, so that nothing can change between check and use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runloop.digest import blob_digest, framed
from runloop.errors import NotFoundError, RefusedError

__all__ = ["BundleError", "bundle_digest", "read_bundle", "read_plain"]

MAX_FILES = 1_000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_BUNDLE_BYTES = 128 * 1024 * 1024
MAX_DEPTH = 8
MAX_PATH_CHARS = 240

_DOMAIN = b"runloop bundle v0"
_NOT_CONTENT = "__pycache__"
"""The one name that is not part of a bundle: what a Python beside it leaves behind; never loaded."""


class BundleError(RefusedError):
    """This directory cannot be a bundle: links, special files, names or sizes that are not allowed."""

    code: ClassVar[str] = "bundle.files"


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """BLAKE3 over every path and its bytes, paths sorted by their UTF-8, each part framed by its length."""
    parts = [_DOMAIN]
    for path, data in sorted((path.encode(), data) for path, data in files.items()):
        parts += [path, data]
    return blob_digest(framed(*parts))


def read_bundle(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by its path with ``/``.

    Raises :class:`NotFoundError` where there is no such directory and :class:`BundleError` for symlinks, hard
    links, devices, names with control characters, and more than the bounds of this module allow.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no bundle at {folder}", code="bundle.missing") from error
    except OSError as error:
        raise BundleError(
            f"{folder} is not a directory that can be read: {error.strerror}",
            hint="a bundle is a real directory, not a link",
        ) from error
    files: dict[str, bytes] = {}
    try:
        _read_folder(root, "", 0, files)
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error}") from error
    finally:
        os.close(root)
    return files


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of one plain file, looked at where a stranger may have put something else.

    Raises :class:`NotFoundError` where there is none, :class:`BundleError` for a link, a FIFO, a device, or
    more than ``most`` bytes; of none of them is anything read.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", code="bundle.missing") from error
    except OSError as error:
        raise BundleError(
            f"{path} is no file that can be read: {error.strerror}", hint="put the file itself there"
        ) from error
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{path} is not a plain file", hint="put the file itself there")
        data = file.read(most + 1) if found.st_size <= most else b""
    if found.st_size > most or len(data) > most:
        raise BundleError(f"{path} is larger than {most} bytes")
    return data


def _read_folder(fd: int, prefix: str, depth: int, files: dict[str, bytes]) -> None:
    if depth > MAX_DEPTH:
        raise BundleError(f"{prefix!r} lies deeper than {MAX_DEPTH} directories")
    for name in sorted(os.listdir(fd)):
        if name == _NOT_CONTENT:
            continue
        path = _name(prefix, name)
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                _read_folder(below, path + "/", depth + 1, files)
            finally:
                os.close(below)
        elif stat.S_ISREG(found.st_mode):
            files[path] = _read_file(fd, name, path)
            if len(files) > MAX_FILES:
                raise BundleError(f"the bundle has more than {MAX_FILES} files")
            if sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
                raise BundleError(f"the bundle is larger than {MAX_BUNDLE_BYTES} bytes")
        else:
            raise BundleError(
                f"{path} is a link or a special file; a bundle holds plain files only",
                hint=f"replace {path} by a copy of what it points to",
            )


def _name(prefix: str, name: str) -> str:
    path = prefix + name
    if not name.isprintable() or "\\" in name or len(path) > MAX_PATH_CHARS or _surrogates(name):
        raise BundleError(
            f"the file name {path!r} is not allowed in a bundle",
            hint=f"use printable characters and at most {MAX_PATH_CHARS} of them",
        )
    return path


def _surrogates(name: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in name)


def _read_file(fd: int, name: str, path: str) -> bytes:
    # Not blocking, for a FIFO put in the file's place since; never through a link.
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise BundleError(
                f"{path} is not a plain file with one name", hint=f"replace {path} by a copy of its content"
            )
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise BundleError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data
