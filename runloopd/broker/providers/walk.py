"""From a granted root to a file: one name after the other, each opened, looked at, and never looked up again.

Knows: what a path may look like, ``openat2``, which files are never touched whatever is granted, and how to
say so. Does not know: who may use which root (``broker.fs_ops``), what is done with a file
(``providers.files``).

Every component is opened on its own with ``openat2`` (no symbolic link, no magic link, nothing above the
directory it starts from, below the root no other mount) and judged through the descriptor. There is no way
around: where the kernel does not know ``openat2``, nothing is opened. ``O_PATH`` comes first, so a FIFO never
blocks and a device never notices; only what proved to be a regular file is opened for its bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runloop.errors import ConflictError, FailedError, NotFoundError, RefusedError, RunloopError, UsageError

__all__ = [
    "WALK", "FileError", "Identity", "Place", "allow", "changed", "exchange", "identities", "identity",
    "is_plain", "is_reserved", "name_anew", "names_of", "no_file", "no_folder", "odd", "open_name", "opened",
    "place", "regular", "reopened", "translated", "unreserved",
]  # fmt: skip

MAX_PATH_BYTES = 4_095
MAX_DEPTH = 128

Identity = tuple[int, int]
"""Device and inode."""


class FileError(RefusedError):
    """This path is not for agents, whatever is granted. Asking again changes nothing."""

    code = "fs.refused"


# --- paths ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A path below a granted root."""

    root: str
    """Absolute and normalised."""
    parts: tuple[bytes, ...]
    """Names from the root on; empty is the root itself."""
    path: str
    """The whole of it."""


def place(path: str, root: str) -> Place:
    """``path`` as names below ``root``, which must cover it by whole names.

    Raises :class:`UsageError` (``fs.path``) for a path that is not written out plainly.
    """
    names = names_of(path)
    above = names_of(root)
    if names[: len(above)] != above:
        raise UsageError(f"{path!r} does not lie below {root!r}", code="fs.path")
    return Place(root, tuple(names[len(above) :]), path)


def names_of(path: str) -> list[bytes]:
    """The names of an absolute path, as the file system spells them. Raises :class:`UsageError`."""
    try:
        data = path.encode()
    except UnicodeEncodeError as error:
        raise _bad(path, "it is not text") from error
    if not data.startswith(b"/"):
        raise _bad(path, "it does not begin with '/'")
    if len(data) > MAX_PATH_BYTES:
        raise _bad(path, f"it has more than {MAX_PATH_BYTES} bytes")
    if not is_plain(data):
        raise _bad(path, "it contains a control character")
    if data == b"/":
        return []
    names = data[1:].split(b"/")
    if any(name in (b"", b".", b"..") for name in names):
        raise _bad(path, "it contains '.', '..' or an empty name")
    if len(names) > MAX_DEPTH or any(len(name) > 255 for name in names):
        raise _bad(path, f"a name has more than 255 bytes, or there are more than {MAX_DEPTH}")
    return names


def is_plain(name: bytes) -> bool:
    """Whether a name holds no control character."""
    return not any(byte < 0x20 or byte == 0x7F for byte in name)


def is_reserved(name: bytes) -> bool:
    """Whether a name is one of those that prepared files have."""
    return name.startswith(b".runloop-") and name.endswith(b".tmp")


def unreserved(name: bytes, place: Place) -> None:
    """Raise :class:`FileError` for a reserved name."""
    if is_reserved(name):
        raise FileError(f"{place.path!r}: names like this are Runloop's while it writes", code="fs.own")


def _bad(path: str, why: str) -> UsageError:
    return UsageError(f"{path[:200]!r} is not a path for agents: {why}", hint="write it out", code="fs.path")


# --- the kernel -----------------------------------------------------------------------------------

_OPENAT2 = 437
"""The number is one and the same on every architecture that Linux has had since 5.6."""
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_TRIES = 64
WALK = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_name(folder: int, name: bytes, flags: int, *, cross: bool) -> int:
    """Open one name. ``cross``: it may be where another file system is mounted. Raises :class:`OSError`."""
    how = _OpenHow(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | (0 if cross else _NO_XDEV))
    for _ in range(_TRIES):
        made = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if made >= 0:
            return int(made)
        code = ctypes.get_errno()
        # EAGAIN: something moved during the walk; one name without '..' is simply looked up again.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code))
    raise OSError(errno.EIO, "it keeps moving")


def exchange(folder: int, one: bytes, other: bytes) -> None:
    """Let two names of a directory change places, at once. Raises :class:`OSError`."""
    _renameat2(folder, one, other, _RENAME_EXCHANGE)


def name_anew(folder: int, old: bytes, new: bytes) -> None:
    """Give a file a name that nothing has yet. Raises :class:`OSError`."""
    _renameat2(folder, old, new, _RENAME_NOREPLACE)


def _renameat2(folder: int, old: bytes, new: bytes, flags: int) -> None:
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, "renameat2 is missing")
    done = _libc.renameat2(
        ctypes.c_int(folder), ctypes.c_char_p(old), ctypes.c_int(folder), ctypes.c_char_p(new),
        ctypes.c_uint(flags),
    )  # fmt: skip
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_KERNELS_OWN = {
    0x9FA0: "/proc", 0x62656572: "/sys", 0x1CD1: "/dev/pts", 0x27E0EB: "cgroups", 0x63677270: "cgroups",
    0x64626720: "debugfs", 0x74726163: "tracefs", 0x73636673: "securityfs", 0xCAFE4A11: "bpf",
    0x19800202: "mqueue", 0x6E736673: "namespaces", 0x62656570: "configfs", 0xF97CFF8C: "selinuxfs",
    0x42494E4D: "binfmt_misc", 0xDE5E81E4: "efivars", 0x6165676C: "pstore", 0x65735543: "fusectl",
}  # fmt: skip
"""Magic numbers of file systems that are the kernel's own face."""


def _file_system(descriptor: int) -> int:
    """The magic number of the file system that a descriptor is of."""
    room = ctypes.create_string_buffer(256)
    if _libc.fstatfs(ctypes.c_int(descriptor), room) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # f_type is the first member, and a long, on amd64 and arm64.
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF


# --- the walk -------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(place: Place, ours: frozenset[Identity], *, up_to: int | None = None) -> Iterator[int]:
    """A descriptor (``O_PATH``) of the place, or of the directory ``up_to`` names below the root."""
    above = names_of(place.root)
    below = place.parts[:up_to]
    now = os.open("/", WALK | os.O_DIRECTORY)
    try:
        allow(now, ours, place)
        for number, name in enumerate((*above, *below)):
            last = number == len(above) + len(below) - 1
            flags = WALK if last and up_to is None else WALK | os.O_DIRECTORY
            unreserved(name, place)
            try:
                found = open_name(now, name, flags, cross=number < len(above))
            except OSError as error:
                raise _why(now, name, place, error) from error
            os.close(now)
            now = found
            allow(now, ours, place)
        yield now
    finally:
        os.close(now)


def _why(folder: int, name: bytes, place: Place, error: OSError) -> Exception:
    """A walk's error in words: what stands in the way is looked at, never used."""
    if error.errno == errno.ENOTDIR:
        with contextlib.suppress(OSError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return link(place)
            if stat.S_ISDIR(mode):
                return changed(place)  # it was something else a moment ago
            if not stat.S_ISREG(mode):
                return odd(mode, place)
    return translated(place, error)


@contextlib.contextmanager
def reopened(handle: int, flags: int) -> Iterator[int]:
    """The very file of an ``O_PATH`` descriptor, opened for use: by number, no name is looked up."""
    made = os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC)
    try:
        if identity(os.fstat(made)) != identity(os.fstat(handle)):
            raise OSError(errno.ENOSYS, "/proc is not the kernel's")
        yield made
    finally:
        os.close(made)


# --- what is not for agents -----------------------------------------------------------------------


def allow(handle: int, ours: frozenset[Identity], place: Place) -> None:
    """Raise unless the opened file is neither Runloop's own nor the kernel's, and not a link."""
    found = os.fstat(handle)
    if stat.S_ISLNK(found.st_mode):
        raise link(place)
    if identity(found) in ours:
        raise FileError(
            f"{place.path!r} is Runloop's own: no grant reaches there",
            hint="use a directory of your own",
            code="fs.own",
        )
    kernels = _KERNELS_OWN.get(_file_system(handle))
    if identity(found) == identity(Path("/dev").stat()):
        kernels = "/dev"  # the kernel's, but of the same kind as any file system in memory
    if kernels is not None:
        raise FileError(
            f"{place.path!r} lies in {kernels}, which is the kernel's: no grant reaches there",
            hint="use a directory of your own",
            code="fs.system",
        )


def regular(found: os.stat_result, place: Place) -> None:
    """Raise unless it is a regular file with one name."""
    if not stat.S_ISREG(found.st_mode):
        raise no_file(place) if stat.S_ISDIR(found.st_mode) else odd(found.st_mode, place)
    if found.st_nlink > 1:
        raise FileError(
            f"{place.path!r} has {found.st_nlink} names: one of them may be outside the grant",
            hint="give the agent a copy",
            code="fs.hardlink",
        )


def identity(found: os.stat_result) -> Identity:
    """What names a file, whatever path led there."""
    return (found.st_dev, found.st_ino)


def identities(path: Path, depth: int) -> Iterator[Identity]:
    """A file, or a directory and all that is in it, ``depth`` levels in. What is not there is no fault."""
    try:
        yield identity(path.stat())
        inside = list(os.scandir(path)) if depth else []
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what this process may not look into, it cannot hand out either
    for entry in inside:
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                yield from identities(Path(entry.path), depth - 1)
            else:
                yield identity(entry.stat(follow_symlinks=False))


# --- words ----------------------------------------------------------------------------------------


def link(place: Place) -> FileError:
    """Links are not followed."""
    return FileError(
        f"{place.path!r} leads through a symbolic link, and links are not followed",
        hint="grant and name the directory it stands for",
        code="fs.symlink",
    )


def odd(mode: int, place: Place) -> FileError:
    """Neither a file nor a directory."""
    for test, what, code in (
        (stat.S_ISLNK, "a symbolic link", "fs.symlink"),
        (stat.S_ISFIFO, "a FIFO", "fs.fifo"),
        (stat.S_ISSOCK, "a socket", "fs.socket"),
    ):
        if test(mode):
            return FileError(f"{place.path!r} is {what}, not a regular file", code=code)
    return FileError(f"{place.path!r} is a device, not a regular file", code="fs.device")


def no_file(place: Place) -> UsageError:
    """A directory, where a file was meant."""
    return UsageError(f"{place.path!r} is a directory", hint="use fs.list", code="fs.not_file")


def no_folder(place: Place) -> UsageError:
    """No directory, where one was meant."""
    return UsageError(f"{place.path!r} or a part of it is not a directory", code="fs.not_dir")


def changed(place: Place) -> ConflictError:
    """Somebody else was there."""
    return ConflictError(
        f"{place.path!r} is not what was expected: somebody changed it",
        hint="read it again",
        code="fs.changed",
    )


_PLAINLY: dict[int, tuple[type[RunloopError], str, str, str | None]] = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        (FileError, "the system does not permit it", "fs.permission", None),
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (FailedError, "no space is left", "fs.full", "make room")
    ),
    **dict.fromkeys(
        (errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EOPNOTSUPP),
        (
            FileError,
            "this system cannot open or replace files safely",
            "fs.unsupported",
            "Linux 5.6 or newer and an ordinary local file system are needed",
        ),
    ),
    errno.ENOENT: (NotFoundError, "there is no such file", "fs.absent", None),
    errno.EXDEV: (
        FileError,
        "another file system is mounted there",
        "fs.mount",
        "grant the mounted directory itself",
    ),
}


def translated(place: Place, error: OSError) -> RunloopError:
    """The system's error in our words."""
    code = error.errno or 0
    if code == errno.ENOTDIR:
        return no_folder(place)
    if code == errno.ELOOP:
        return link(place)
    if code == errno.EEXIST:
        return changed(place)
    if code in _PLAINLY:
        family, why, named, hint = _PLAINLY[code]
        return family(f"{place.path!r}: {why}", hint=hint, code=named)
    return FailedError(f"{place.path!r}: {error.strerror or 'input/output error'}", code="fs.io")
