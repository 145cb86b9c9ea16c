"""The hello: who speaks, which build, and the proof of the operator credential.

The server speaks first (schema 101, with a fresh nonce), the client answers (schema 100), the server closes
with 2002 ``{id: "hello"}``. The proof binds the credential to this very session, so that a captured one is
worth nothing (attacks.md B6). What kind of principal results is decided by the server alone.
"""

from __future__ import annotations

from typing import Any

from blake3 import blake3

from runloop.errors import RefusedError, UsageError

__all__ = [
    "CREDENTIAL_BYTES",
    "HELLO_ID",
    "INSTANCE_BYTES",
    "NONCE_BYTES",
    "PROTOCOL",
    "check_versions",
    "instance",
    "proof",
    "proves",
]

PROTOCOL = 0
NONCE_BYTES = 32
CREDENTIAL_BYTES = 32
INSTANCE_BYTES = 32
HELLO_ID = "hello"
_CONTEXT = b"runloop operator hello v0"


def proof(credential: bytes, nonce: bytes) -> bytes:
    """Keyed BLAKE3 over the context and the server's nonce; the credential itself never travels."""
    if len(credential) != CREDENTIAL_BYTES:
        raise UsageError(
            f"the operator credential has {len(credential)} bytes, not {CREDENTIAL_BYTES}",
            hint="stop the daemon and remove keys/operator.key; the next start writes a new one",
            code="hello.credential",
        )
    return blake3(_CONTEXT + nonce, key=credential).digest()


def proves(candidate: Any, credential: bytes, nonce: bytes) -> bool:
    """Tell, in constant time, whether ``candidate`` proves the credential."""
    import hmac  # the daemon's side only; 10 ms that a command line need not pay

    return isinstance(candidate, bytes) and hmac.compare_digest(candidate, proof(credential, nonce))


def instance(label: str, secret: Any, nonce: bytes) -> str:
    """Who a publisher is over all its sessions: 32 hex digits, from its label and the secret in its hello.

    The client draws the secret once and tells it to nobody else. Only the digest is kept and shown, and the
    label is part of it: a program that proved less cannot speak in another's name, and knowing a name is not
    enough to use it. Without a secret (None) a session is a publisher of its own.
    """
    if secret is not None and (type(secret) is not bytes or len(secret) != INSTANCE_BYTES):
        raise UsageError(f"a hello's instance is {INSTANCE_BYTES} bytes", code="hello.shape")
    kept = secret if secret is not None else nonce
    return blake3(b"runloop publisher v0" + bytes([secret is None]) + kept + label.encode()).hexdigest(16)


def check_versions(*, daemon: tuple[object, object], client: tuple[object, object]) -> None:
    """Raise :class:`RefusedError` unless both sides are ``(protocol, build)`` equals (attacks.md S4)."""
    if daemon != client:
        raise RefusedError(
            f"the daemon is build {_show(daemon[1])} (protocol {_show(daemon[0])}), "
            f"this client build {_show(client[1])} (protocol {_show(client[0])})",
            hint="type 'rlp daemon stop' and try again",
            code="hello.version",
        )


def _show(value: object) -> str:
    return ascii(value)[1:81].rstrip("'") if isinstance(value, str) else ascii(value)[:80]
