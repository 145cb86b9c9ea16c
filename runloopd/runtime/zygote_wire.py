"""Control messages between the daemon and the zygote: JSON datagrams with descriptors beside them.

Knows: how one message travels over a ``SOCK_SEQPACKET`` pair. Does not know: what it asks for, and imports no
engine.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Collection
from typing import Any

import msgspec

__all__ = ["CONTROL_BYTES", "receive_control", "send_control"]

CONTROL_BYTES = 65_536
"""Largest control message."""

_FDS = 4


def send_control(control: socket.socket, message: dict[str, Any], fds: Collection[int] = ()) -> None:
    """Send one message, with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    control.sendmsg([msgspec.json.encode(message)], ancillary)


def receive_control(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message and its descriptors; None when the other side closed."""
    data, ancillary, _, _ = control.recvmsg(
        CONTROL_BYTES, socket.CMSG_SPACE(_FDS * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data:
        return None
    return msgspec.json.decode(data, type=dict[str, Any]), list(fds)
