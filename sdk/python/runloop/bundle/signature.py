"""Signatures: Ed25519 keys, DSSE envelopes, and the exact bytes that are signed.

Knows: how a key is named and written, the pre-authentication encoding (PAE), the one form of an envelope's
line. Does not know: what a statement says (``bundle.statement``), whose key it is (``bundle.trust``), or
where private keys lie (``bundle.keyfile``). Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runloop.digest import canonical
from runloop.errors import RefusedError, RunloopError, UsageError

__all__ = ["PAYLOAD_TYPE", "Envelope", "EnvelopeError", "PublicKey", "Signature", "SigningKey", "pae"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_PAYLOAD_BYTES = 131_072
_PREFIX = "ed25519:"


class EnvelopeError(RefusedError):
    """A line that is not an envelope in its one form."""

    code: ClassVar[str] = "signature.envelope"


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE v1's encoding, in which type and payload cannot trade bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise UsageError(
                f"an Ed25519 public key has 32 bytes, not {len(self.raw)}",
                hint="write ed25519: and 44 characters of base64",
                code="key.public",
            )

    @property
    def key_id(self) -> str:
        """``ed25519:`` and the first 32 hex digits of the SHA-256 of the raw key."""
        return _PREFIX + hashlib.sha256(self.raw).hexdigest()[:32]

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Inverse of ``str``: ``ed25519:<base64>``. Raises :class:`UsageError`."""
        raw = _base64(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else None
        if raw is None or len(raw) != 32:
            raise UsageError(
                f"{text[:80]!r} is not an Ed25519 public key",
                hint="write ed25519: and 44 characters of base64",
                code="key.public",
            )
        return cls(raw)

    def __str__(self) -> str:
        return _PREFIX + base64.b64encode(self.raw).decode()

    def holds(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """An Ed25519 private key. Its text form shows the public half only."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of 32 secret bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same key and message give the same signature."""
        return self._private.sign(message)

    def private(self) -> Ed25519PrivateKey:
        """For ``bundle.keyfile`` alone."""
        return self._private

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not copied to other processes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """One signature of an envelope. ``key_id`` says which key to try, and is itself not signed."""

    key_id: str
    bytes: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A payload of type in-toto and at most one signature over it."""

    payload: bytes
    signature: Signature | None = None

    def signed(self, key: SigningKey) -> Envelope:
        """The same payload with ``key``'s signature in place of any other."""
        made = Signature(key_id=key.key_id, bytes=key.sign(pae(PAYLOAD_TYPE, self.payload)))
        return replace(self, signature=made)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether the signature names this key and holds."""
        found = self.signature
        return (
            found is not None
            and found.key_id == key.key_id
            and key.holds(found.bytes, pae(PAYLOAD_TYPE, self.payload))
        )

    def to_line(self) -> bytes:
        """Canonical JSON (RFC 8785) and a line feed."""
        signatures = [] if self.signature is None else [_signature_json(self.signature)]
        value = {"payload": _text(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
        return canonical(value) + b"\n"

    @classmethod
    def from_line(cls, line: bytes, *, max_bytes: int = 2 * MAX_PAYLOAD_BYTES) -> Envelope:
        """Inverse of :meth:`to_line`, with or without the line feed; raises :class:`EnvelopeError`.

        Strict: any other spelling of the same envelope, a second signature, another type are refused.
        """
        bare = line.removesuffix(b"\n")
        if len(bare) > max_bytes:
            raise EnvelopeError("an envelope is too long", hint="build the bundle again")
        try:
            made = cls._from_json(orjson.loads(bare))
            if made is not None and made.to_line() == bare + b"\n":
                return made
        except (ValueError, RunloopError) as error:
            raise EnvelopeError("a line is not a DSSE envelope", hint="build the bundle again") from error
        raise EnvelopeError(
            "a line is not a DSSE envelope in its one form",
            hint="sign it with 'rlp agent sign'; one signature, canonical JSON, type in-toto",
        )

    @classmethod
    def _from_json(cls, value: object) -> Envelope | None:
        match value:
            case {"payload": str(text), "payloadType": str(), "signatures": []}:
                signature = None
            case {
                "payload": str(text),
                "payloadType": str(),
                "signatures": [{"keyid": str(key_id), "sig": str(sig)}],
            }:
                raw = _base64(sig)
                signature = None if raw is None else Signature(key_id=key_id, bytes=raw)
            case _:
                return None
        payload = _base64(text)
        return None if payload is None else cls(payload=payload, signature=signature)


def _signature_json(signature: Signature) -> dict[str, str]:
    return {"keyid": signature.key_id, "sig": _text(signature.bytes)}


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _base64(text: str) -> bytes | None:
    """The bytes of standard base64 in its one spelling; None for any other."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _text(raw) == text else None
