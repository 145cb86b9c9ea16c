"""The keyring of the desktop, where there is one that works.

Knows: the library ``keyring``, that a backend may be a stub, keep secrets in clear, or wait for a person who
is not there. Does not know: which names it holds (keyrings cannot be listed; the ledger knows what was set).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from runloop.errors import FailedError

__all__ = ["Ring"]

T = TypeVar("T")

_SERVICE = "runloop"
_USABLE = 1.0
"""Backends below are stubs, or keep what they are given in clear (keyring's own convention)."""


class Ring:
    """Implements :class:`runloopd.broker.vault.Place`. A keyring that does not answer holds nothing."""

    name = "keyring"

    def __init__(self, *, patience_s: float = 10.0, backend: Any = None) -> None:
        """``patience_s``: longest wait for the backend, which may be asking a person to unlock it.
        ``backend``: an object as ``keyring.get_keyring`` returns; None asks that."""
        self._patience_s = patience_s
        self._backend = backend

    @property
    def writable(self) -> bool:
        """See the protocol."""
        return self._usable() is not None

    def get(self, name: str) -> str | None:
        """See the protocol."""
        backend = self._usable()
        if backend is None:
            return None
        try:
            value = self._bounded(lambda: backend.get_password(_SERVICE, name))
        except FailedError:
            return None
        return value if isinstance(value, str) else None

    def put(self, name: str, value: str) -> None:
        """See the protocol."""
        backend = self._usable()
        if backend is None:
            raise _failed("there is no keyring that keeps secrets encrypted")
        self._bounded(lambda: backend.set_password(_SERVICE, name, value))
        if self._bounded(lambda: backend.get_password(_SERVICE, name)) != value:
            raise _failed("it does not give back what was put in")

    def drop(self, name: str) -> bool:
        """See the protocol."""
        backend = self._usable()
        if backend is None or self.get(name) is None:
            return False
        self._bounded(lambda: backend.delete_password(_SERVICE, name))
        return True

    def names(self) -> Collection[str]:
        """See the protocol: none, keyrings cannot be listed."""
        return ()

    def _usable(self) -> Any:
        if self._backend is None:
            try:
                import keyring
            except ImportError:
                return None
            try:
                self._backend = self._bounded(keyring.get_keyring)
            except FailedError:
                return None
        try:
            return self._backend if float(self._backend.priority) >= _USABLE else None
        except Exception:
            # Backends raise whatever they like; an unusable keyring is one that holds nothing.
            return None

    def _bounded(self, work: Callable[[], T]) -> T:
        """In a thread of its own: a locked keyring waits for a person, and nobody may be there."""
        done: list[T] = []
        failed: list[str] = []

        def run() -> None:
            try:
                done.append(work())
            except Exception as error:
                failed.append(type(error).__name__)  # its text may hold the value

        thread = threading.Thread(target=run, name="keyring", daemon=True)
        thread.start()
        thread.join(self._patience_s)
        if done:
            return done[0]
        raise _failed(failed[0] if failed else f"it did not answer within {self._patience_s:g} s")


def _failed(why: str) -> FailedError:
    return FailedError(
        f"the keyring cannot be used: {why}",
        hint="unlock it, or keep the secret in the encrypted file with --store age",
        code="secret.place",
    )
