"""Control methods of secrets: what the operator sets, sees and takes away. Values come in and never go out.

Knows: the shapes of the methods, that each change is stated before it is made. Does not know: where secrets
lie (``broker.vault``), or who uses them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from runloop.errors import NotFoundError
from runloop.spelling import did_you_mean
from runloopd.broker.secret_book import SecretBook, SecretEntry, check_destination
from runloopd.broker.secrets import Held, Secret, SecretStore, check_name
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row

__all__ = ["SecretMethods"]

OLD_PLACE = "file"


class SetSecret(Params, frozen=True, kw_only=True):
    name: str
    value: str
    store: str | None = None
    destinations: list[str] | None = None
    """None: as they were."""

    def __repr__(self) -> str:
        return f"SetSecret({self.name!r})"


class AllowSecret(Params, frozen=True, kw_only=True):
    name: str
    destinations: list[str]


class OneSecret(Params, frozen=True, kw_only=True):
    name: str


class ImportSecrets(Params, frozen=True, kw_only=True):
    store: str | None = None


class SecretMethods:
    """``secret.set|allow|list|remove|import``."""

    def __init__(self, store: SecretStore, book: SecretBook) -> None:
        self._store = store
        self._book = book
        self._changing = asyncio.Lock()

    def rows(self) -> Sequence[Row]:
        """The methods. All need the operator."""
        return (
            ("secret.set", SetSecret, self._set, True),
            ("secret.allow", AllowSecret, self._allow, True),
            ("secret.list", Nothing, self._list, True),
            ("secret.remove", OneSecret, self._remove, True),
            ("secret.import", ImportSecrets, self._import, True),
        )

    async def _set(self, principal: Principal, params: SetSecret) -> Any:
        name = check_name(params.name)
        Secret(params.value, name=name)  # refused before anything is stated
        async with self._changing:
            place = await asyncio.to_thread(self._store.home_of, name, params.store)
            replaced = await asyncio.to_thread(self._store.place_of, name) is not None
            wanted = self._book.destinations(name) if params.destinations is None else params.destinations
            await self._book.state_set(name, place, wanted, principal.label)
            await asyncio.to_thread(self._store.put, name, params.value, place)
        return {
            "name": name,
            "store": place,
            "replaced": replaced,
            "destinations": sorted(self._book.destinations(name)),
        }

    async def _allow(self, principal: Principal, params: AllowSecret) -> Any:
        name = check_name(params.name)
        async with self._changing:
            if await asyncio.to_thread(self._store.place_of, name) is None:
                raise NotFoundError(
                    f"there is no secret {name}", hint=f"rlp secret set {name}", code="secret.missing"
                )
            where = [check_destination(text) for text in params.destinations]
            await self._book.state_set(name, "", where, principal.label)
        return {"name": name, "destinations": sorted(self._book.destinations(name))}

    async def _remove(self, principal: Principal, params: OneSecret) -> Any:
        name = check_name(params.name)
        async with self._changing:
            where = await asyncio.to_thread(self._store.place_of, name)
            if where is None and name not in self._book.entries():
                raise NotFoundError(
                    f"there is no secret {name}",
                    hint=did_you_mean(name, self._book.entries(), "'rlp secret list' shows them"),
                    code="secret.missing",
                )
            # Stated first: whatever happens then, no agent is lent it any more.
            if name in self._book.entries():
                await self._book.state_removed(name, principal.label)
            dropped = [] if where is None else await asyncio.to_thread(self._store.drop, name)
        return {"name": name, "stores": dropped}

    async def _import(self, principal: Principal, params: ImportSecrets) -> Any:
        async with self._changing:
            old = [
                held.name for held in await asyncio.to_thread(self._store.listed) if held.place == OLD_PLACE
            ]
            if not old:
                raise NotFoundError(
                    "there is no secrets.toml with secrets in it",
                    hint="'rlp secret list' shows where secrets lie",
                    code="secret.missing",
                )
            place = await asyncio.to_thread(self._store.home_of, old[0], params.store)
            for name in old:
                await self._book.state_set(name, place, self._book.destinations(name), principal.label)
            moved = await asyncio.to_thread(self._store.move_over, place)
        return {"store": place, "moved": moved}

    async def _list(self, _: Principal, __: Nothing) -> Any:
        entries = self._book.entries()
        held = await asyncio.to_thread(self._held, entries)
        first = {one.name: one.place for one in reversed(held)}
        names = sorted({*first, *(name for name in entries if not name.startswith("$"))})
        return {"secrets": [_shown(name, first.get(name), entries.get(name)) for name in names]}

    def _held(self, entries: dict[str, SecretEntry]) -> list[Held]:
        """What the places list, and what a keyring, which cannot, is known to have been given."""
        listed = self._store.listed()
        known = {one.name for one in listed}
        asked = [name for name in entries if name not in known and not name.startswith("$")]
        found = ((name, self._store.place_of(name)) for name in asked)
        return [*listed, *(Held(name=name, place=place) for name, place in found if place is not None)]


def _shown(name: str, place: str | None, entry: SecretEntry | None) -> dict[str, Any]:
    entry = entry or SecretEntry(name=name)
    return {
        "name": name,
        "store": place,
        "destinations": sorted(entry.destinations),
        "set_ms": entry.set_ms,
        "used_ms": entry.used_ms,
        "used_by": entry.used_by,
        "used_to": entry.used_to,
    }
