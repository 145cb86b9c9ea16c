"""The file of secrets that is encrypted with age: its bytes, and what is inside.

Knows: the format, its version, that an error never quotes it. Does not know: where file and key lie, who may
read them (``runloopd.broker.vault``), or what the secrets are for.
"""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["SecretFileError", "new_identity", "seal", "unseal"]

_VERSION = 1


class SecretFileError(ValueError):
    """The file is not what it should be. The text says how, and nothing of what is inside."""


def new_identity() -> str:
    """A fresh age identity, as text."""
    from pyrage import x25519

    return str(x25519.Identity.generate())


def seal(secrets: dict[str, str], identity: str) -> bytes:
    """The file that only ``identity`` opens."""
    import pyrage

    plain = orjson.dumps({"version": _VERSION, "secrets": secrets})
    return pyrage.encrypt(plain, [_parsed(identity).to_public()])  # type: ignore[no-any-return]


def unseal(sealed: bytes, identity: str) -> dict[str, str]:
    """Name -> value. Raises :class:`SecretFileError`."""
    import pyrage

    key = _parsed(identity)
    try:
        table: Any = orjson.loads(pyrage.decrypt(sealed, [key]))
    except orjson.JSONDecodeError:
        # Without the cause on purpose: a parser keeps the document.
        raise SecretFileError("what is inside is not a table of secrets") from None
    except Exception:
        raise SecretFileError("its key does not open it, or it is damaged") from None
    if not isinstance(table, dict) or table.get("version") != _VERSION:
        raise SecretFileError("it was written by another version")
    secrets = table.get("secrets")
    if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
        raise SecretFileError("what is inside is not a table of secrets")
    return secrets


def _parsed(identity: str) -> Any:
    from pyrage import x25519

    try:
        return x25519.Identity.from_str(identity.strip())
    except Exception:
        raise SecretFileError("its key is not an age identity") from None
