"""Where secrets lie: one protocol, one module per kind of place.

Knows: the order in which places are asked. Does not know: who may use a secret (``broker.secret_ops``), or
what is on record about it (``broker.secret_book``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

__all__ = ["Place", "places_of"]


class Place(Protocol):
    """One place that holds secrets by name. Every method may block; none says a value in an error.

    Raises :class:`runloop.errors.RefusedError` (``secret.file``) for a place that is not safe to use, and
    :class:`runloop.errors.FailedError` (``secret.place``) for one that does not do what it should.
    """

    @property
    def name(self) -> str:
        """How people call it: ``systemd``, ``keyring``, ``age``, ``file``."""
        ...

    @property
    def writable(self) -> bool:
        """Whether it takes secrets now; True says that a value put there is found again."""
        ...

    def get(self, name: str) -> str | None:
        """The value, read anew each time, or None."""
        ...

    def put(self, name: str, value: str) -> None:
        """Keep a value, whole or not at all."""
        ...

    def drop(self, name: str) -> bool:
        """Forget a value; False where there was none."""
        ...

    def names(self) -> Collection[str]:
        """The names it can list; a place that cannot list says none."""
        ...


def places_of(environ: Mapping[str, str], *, home: Path, keys_dir: Path) -> tuple[Place, ...]:
    """The places of one home, in the order they are asked: whoever comes first wins."""
    from runloopd.broker.vault.age import AgeFile
    from runloopd.broker.vault.plain import PlainFile
    from runloopd.broker.vault.ring import Ring
    from runloopd.broker.vault.systemd import Credentials

    handed = environ.get("CREDENTIALS_DIRECTORY")
    return (
        *([Credentials(Path(handed))] if handed else []),
        Ring(),
        AgeFile(home / "secrets.age", identity=keys_dir / "secrets.key"),
        PlainFile(home / "secrets.toml"),
    )
