"""The twin of a place, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection

__all__ = ["Kept", "Lookup"]


class Kept:
    """Implements :class:`runloopd.broker.vault.Place` in a dictionary."""

    def __init__(self, name: str = "memory", *, writable: bool = True, **secrets: str) -> None:
        self.name = name
        self.writable = writable
        self.secrets = dict(secrets)

    def get(self, name: str) -> str | None:
        """See the protocol."""
        return self.secrets.get(name)

    def put(self, name: str, value: str) -> None:
        """See the protocol."""
        self.secrets[name] = value

    def drop(self, name: str) -> bool:
        """See the protocol."""
        return self.secrets.pop(name, None) is not None

    def names(self) -> Collection[str]:
        """See the protocol."""
        return tuple(self.secrets)


class Lookup(Kept):
    """A place that asks a function, as a keyring that cannot be listed."""

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        super().__init__("lookup", writable=False)
        self._ask = ask

    def get(self, name: str) -> str | None:
        """See the protocol."""
        return self._ask(name)
