"""What programs outside may reach: stated before it holds, the same after a restart, no token kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from pog.errors import LedgerWriteError
from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import Draft, Event
from runloop.testing import ManualClock
from runloopd.authority.faces import Faces
from runloopd.journal import Journal
from tests.unit.authority.journal import MemoryJournal

OPERATOR = "operator:1000"


class Heard(MemoryJournal):
    """Tells its listeners, as the real one does."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.ears: list[Callable[[list[Event]], None]] = []

    def listen(self, ear: Callable[[list[Event]], None]) -> None:
        self.ears.append(ear)

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]:
        made = await super().append(*drafts, blobs=blobs)
        for ear in self.ears:
            ear(made)
        return made


def faces(journal: Heard) -> Faces:
    return Faces(cast(Journal, cast(Any, journal)), list(journal.events))


async def test_the_list_and_the_tokens_are_the_same_after_a_restart() -> None:
    journal = Heard()
    book = faces(journal)
    assert await book.expose(["kb", "opening:x"], [], OPERATOR) == ("kb", "opening:x")
    assert await book.expose(["tool:git.status@looker"], ["kb"], OPERATOR) == (
        "opening:x",
        "tool:git.status@looker",
    )
    first = await book.issue("desk", OPERATOR)
    second = await book.issue("other", OPERATOR)
    await book.revoke("other", OPERATOR)
    again = faces(journal)
    assert again.exposed == book.exposed
    assert [(one.name, one.digest) for one in again.tokens] == [("desk", blob_digest(first.encode()))]
    assert first != second and len(first) > 43
    assert not any(first in repr(event) or second in repr(event) for event in journal.events)


async def test_what_cannot_be_stated_does_not_hold() -> None:
    journal = Heard()
    book = faces(journal)
    journal.broken = True
    with pytest.raises(LedgerWriteError):
        await book.expose(["kb"], [], OPERATOR)
    with pytest.raises(LedgerWriteError):
        await book.issue("desk", OPERATOR)
    assert (book.exposed, book.tokens) == ((), [])


async def test_a_name_has_one_token_and_only_a_token_is_revoked() -> None:
    book = faces(Heard())
    await book.issue("desk", OPERATOR)
    with pytest.raises(ConflictError):
        await book.issue("desk", OPERATOR)
    with pytest.raises(NotFoundError):
        await book.revoke("dusk", OPERATOR)
    for name in ("", "Desk", "a" * 65, "a\nb", "../x"):
        with pytest.raises(UsageError):
            await book.issue(name, OPERATOR)
    with pytest.raises(UsageError):
        await book.expose(["kb", "everything"], [], OPERATOR)
    assert book.exposed == ()
