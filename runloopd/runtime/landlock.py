"""A thread that opens no file any more, whatever its name: Landlock without a single rule.

Knows: the system calls and the rights each version of them has. Does not know: which process it is in. A
guest's worker has everything it needs open already: its socket, its image. Programs get a Landlock with rules
(``broker.tools.entry``).
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["shut", "version"]

# linux/landlock.h; the numbers of the calls are the same on every architecture.
_CREATE, _RESTRICT = 444, 446
_ASK_VERSION = 1
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FILES = (1 << 16) - 1
_NET, _NET_SINCE = 0b11, 4
"""To bind and to connect over TCP."""
_SCOPES, _SCOPES_SINCE = 0b11, 6
"""Abstract sockets of others, and signals to them."""

# Looked up at import, in the zygote, as in ``hardening``.
_call = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def version() -> int:
    """What the kernel speaks; 0: it has none, it is off, or asking is forbidden."""
    return max(0, int(_call(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))))


def shut(spoken: int) -> None:
    """For this thread and what it starts: no file is opened, made, removed or executed by its name. Needs
    ``no_new_privs``. ``spoken``: the kernel's :func:`version`. Raises OSError."""
    rules = _Ruleset(
        files=_FILES.get(spoken, _ALL_FILES),
        net=_NET if spoken >= _NET_SINCE else 0,
        scoped=_SCOPES if spoken >= _SCOPES_SINCE else 0,
    )
    size = 8 if spoken < _NET_SINCE else 16 if spoken < _SCOPES_SINCE else 24
    made = _checked(
        _call(ctypes.c_long(_CREATE), ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    )
    try:
        _checked(_call(ctypes.c_long(_RESTRICT), ctypes.c_int(made), ctypes.c_uint32(0)))
    finally:
        os.close(made)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
