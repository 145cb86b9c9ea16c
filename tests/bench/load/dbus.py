"""As much of the D-Bus wire protocol as connecting, matching and signalling take, little-endian.

Written from the D-Bus specification, "Type System" and "Message Protocol".
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

__all__ = ["authenticate", "call", "marshal", "signal"]

_FIXED = {"y": ("B", 1), "b": ("I", 4), "u": ("I", 4), "h": ("I", 4), "t": ("Q", 8)}
_ALIGNMENT = {"(": 8, "a": 4, "s": 4, "o": 4, "g": 1, "v": 1, **{k: size for k, (_, size) in _FIXED.items()}}
METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _DESTINATION, _SIGNATURE, _FDS = 1, 2, 3, 6, 8, 9


def _split(signature: str) -> list[str]:
    """The complete types that a signature is made of."""
    found, at = [], 0
    while at < len(signature):
        start = at
        while signature[at] == "a":
            at += 1
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(signature[at], 0)
            at += 1
            if not depth:
                break
        found.append(signature[start:at])
    return found


def _put(out: bytearray, kind: str, value: Any) -> None:
    out += bytes(-len(out) % _ALIGNMENT[kind[0]])
    if kind in _FIXED:
        out += struct.pack("<" + _FIXED[kind][0], value)
    elif kind in "so":
        data = value.encode()
        out += struct.pack("<I", len(data)) + data + b"\0"
    elif kind == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif kind == "v":
        _put(out, "g", value[0])
        _put(out, value[0], value[1])
    elif kind == "ay":
        out += struct.pack("<I", len(value)) + value
    elif kind[0] == "a":
        at = len(out)
        out += bytes(4)
        out += bytes(-len(out) % _ALIGNMENT[kind[1]])
        begin = len(out)
        for one in value:
            _put(out, kind[1:], one)
        struct.pack_into("<I", out, at, len(out) - begin)
    else:
        for inner, one in zip(_split(kind[1:-1]), value, strict=True):
            _put(out, inner, one)


def marshal(signature: str, values: tuple[Any, ...]) -> bytes:
    """The body of a message."""
    out = bytearray()
    for kind, value in zip(_split(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def _message(kind: int, serial: int, fields: list[tuple[int, tuple[str, Any]]], body: bytes) -> bytes:
    out = bytearray(struct.pack("<cBBBII", b"l", kind, 1 if kind == SIGNAL else 0, 1, len(body), serial))
    _put(out, "a(yv)", fields)
    out += bytes(-len(out) % 8)
    return bytes(out) + body


def signal(path: str, interface: str, member: str, payload: bytes) -> bytes:
    """A broadcast with one array of bytes; the serial is 0, to be filled in (little-endian u32 at 8)."""
    fields = [
        (_PATH, ("o", path)),
        (_INTERFACE, ("s", interface)),
        (_MEMBER, ("s", member)),
        (_SIGNATURE, ("g", "ay")),
    ]
    return _message(SIGNAL, 0, fields, marshal("ay", (payload,)))


def authenticate(sock: socket.socket, *, pass_fds: bool = False) -> None:
    """SASL EXTERNAL: who we are is what the kernel says."""
    sock.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    _expect(sock, b"OK ")
    if pass_fds:
        sock.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        _expect(sock, b"AGREE_UNIX_FD")
    sock.sendall(b"BEGIN\r\n")


def _expect(sock: socket.socket, start: bytes) -> None:
    line = b""
    while not line.endswith(b"\r\n"):
        got = sock.recv(1)
        if not got:
            break
        line += got
    if not line.startswith(start):
        raise OSError(f"the bus answered {line!r}")


def call(
    sock: socket.socket,
    serial: int,
    *,
    path: str,
    interface: str,
    member: str,
    destination: str | None = "org.freedesktop.DBus",
    signature: str = "",
    values: tuple[Any, ...] = (),
    fds: tuple[int, ...] = (),
) -> None:
    """Call a method and wait for its answer; messages that come before it are the bus's own and dropped."""
    fields: list[tuple[int, tuple[str, Any]]] = [
        (_PATH, ("o", path)),
        (_INTERFACE, ("s", interface)),
        (_MEMBER, ("s", member)),
    ]
    if destination:
        fields.append((_DESTINATION, ("s", destination)))
    if signature:
        fields.append((_SIGNATURE, ("g", signature)))
    if fds:
        fields.append((_FDS, ("u", len(fds))))
    message = _message(METHOD_CALL, serial, fields, marshal(signature, values))
    if fds:
        socket.send_fds(sock, [message], list(fds))
    else:
        sock.sendall(message)
    while True:
        kind, body = _receive(sock)
        if kind == ERROR:
            raise OSError(f"{member}: {body[4:200].decode(errors='replace')}")
        if kind == METHOD_RETURN:
            return


def _receive(sock: socket.socket) -> tuple[int, bytes]:
    head = _exactly(sock, 16)
    body_len, _, fields_len = struct.unpack_from("<III", head, 4)
    _exactly(sock, fields_len + -(16 + fields_len) % 8)
    return head[1], _exactly(sock, body_len)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = sock.recv(count - len(data))
        if not got:
            raise OSError("the bus closed the connection")
        data += got
    return data
