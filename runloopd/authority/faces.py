"""What programs outside may reach, and by which tokens they are known: facts, folded.

Knows: the allow-list of the outside faces, the digests of their tokens. Does not know: any protocol, or what
an item of the list does (``rlp.serving``). A token is shown once, when it is made; its digest is kept.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import Draft, Event, FaceExposed, FaceTokenIssued, FaceTokenRevoked
from runloopd.journal import Journal

__all__ = [
    "FACE_KINDS",
    "Faces",
    "IssuedToken",
    "asker_of",
    "checked_client",
    "checked_item",
    "first_word",
    "is_program",
    "outside",
    "principal_of",
]

FACE_KINDS = (FaceExposed.kind, FaceTokenIssued.kind, FaceTokenRevoked.kind)
MAX_ITEMS = 256
MAX_TOKENS = 64
_TOKEN_BYTES = 32
_CLIENT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_ITEM = re.compile(
    r"(?:kb|opening:[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
    r"|tool:[A-Za-z0-9][A-Za-z0-9_.-]{0,199}(?:@[a-z][a-z0-9_]{0,63})?)\Z"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedToken:
    """A token as it is on record."""

    name: str
    digest: str
    """BLAKE3 of its text, which has 256 bits nobody can guess."""
    issued_ms: int


def checked_client(name: str) -> str:
    """The name of a client. Raises :class:`UsageError` for what is none."""
    if not _CLIENT.match(name):
        raise UsageError(
            f"{name[:80]!r} is no name of a client",
            hint="use small letters, digits, '-', '_' and '.', 64 at most",
            code="face.client",
        )
    return name


_EDITOR = "face:acp:"
"""Beginning of the principal of an editor: no name of a client holds a colon, so none can be one."""
_NAMED = "file:named"
"""Label of a run whose prompt named files: a name is perhaps somebody else's word."""


def principal_of(client: str, *, editor: bool = False) -> str:
    """Who asks, for the record: each client a principal of its own, an editor where the user sits another."""
    return f"{_EDITOR if editor else 'face:'}{checked_client(client)}"


def outside(principal: str) -> str:
    """The principal itself where it is a program outside, an editor included; empty for everybody else."""
    return principal if principal.startswith(("face:", "mcp:")) else ""


def asker_of(principal: str, origin: Mapping[str, Any]) -> str:
    """Who stands behind a run: the program outside that asked for what a fork repeats, else the principal."""
    named = origin.get("asked_by")
    return (outside(named) if isinstance(named, str) else "") or principal


def is_program(principal: str) -> bool:
    """Whether what it asks for are a program's words. In an editor, it is the user who types."""
    return outside(principal) != "" and not principal.startswith(_EDITOR)


def first_word(principal: str, origin: Mapping[str, Any]) -> str | None:
    """Trust label of what a run begins with; None: the user's own words.

    Runs of ledgers that call a client ``mcp:…`` began without one, and are told again as they were.
    """
    if principal.startswith("face:") and is_program(principal):
        return principal
    return _NAMED if principal.startswith(_EDITOR) and origin.get("names_files") is True else None


def checked_item(text: str) -> str:
    """An item of the allow-list. Raises :class:`UsageError` for what is none."""
    if not _ITEM.match(text):
        raise UsageError(
            f"{text[:200]!r} is nothing that can be exposed",
            hint="say kb, opening:NAME, tool:NAME, or tool:NAME@AGENT",
            code="face.item",
        )
    return text


class Faces:
    """The facts, folded; and the pen for new ones. Used from its event loop."""

    def __init__(self, journal: Journal, before: Iterable[Event] = ()) -> None:
        """``before``: what was stated so far, in order."""
        self._journal = journal
        self._exposed: tuple[str, ...] = ()
        self._tokens: dict[str, IssuedToken] = {}
        self._heard(before)
        journal.listen(self._heard)

    @property
    def exposed(self) -> tuple[str, ...]:
        """The allow-list, sorted."""
        return self._exposed

    @property
    def tokens(self) -> list[IssuedToken]:
        """Every token that counts, by name."""
        return [self._tokens[name] for name in sorted(self._tokens)]

    async def expose(self, add: Iterable[str], remove: Iterable[str], principal: str) -> tuple[str, ...]:
        """Change the allow-list; what is removed and added in one word stays."""
        added = {checked_item(text) for text in add}
        gone = {checked_item(text) for text in remove}
        wanted = sorted((set(self._exposed) - gone) | added)
        if len(wanted) > MAX_ITEMS:
            raise UsageError(
                f"{len(wanted)} items; at most {MAX_ITEMS} are exposed", hint="hide some", code="face.item"
            )
        if tuple(wanted) != self._exposed:
            fact = FaceExposed(items=wanted, principal=principal)
            await self._journal.append(Draft(payload=fact, actor=principal, scope="system"))
        return self._exposed

    async def issue(self, name: str, principal: str) -> str:
        """A new token of this name: its text, which is kept nowhere."""
        checked_client(name)
        if name in self._tokens:
            raise ConflictError(
                f"there is a token {name} already",
                hint=f"'rlp mcp serve --revoke {name}' makes it worthless",
                code="face.token",
            )
        if len(self._tokens) >= MAX_TOKENS:
            raise UsageError(f"there are {MAX_TOKENS} tokens already", hint="revoke one", code="face.token")
        text = f"rlt_{secrets.token_urlsafe(_TOKEN_BYTES)}"
        fact = FaceTokenIssued(name=name, token_digest=blob_digest(text.encode()), principal=principal)
        await self._journal.append(Draft(payload=fact, actor=principal, scope="system"))
        return text

    async def revoke(self, name: str, principal: str) -> None:
        """Let a token be worth nothing from now on."""
        if name not in self._tokens:
            raise NotFoundError(
                f"there is no token {name[:80]!r}",
                hint="'rlp mcp serve --tokens' lists them",
                code="face.token",
            )
        fact = FaceTokenRevoked(name=name, principal=principal)
        await self._journal.append(Draft(payload=fact, actor=principal, scope="system"))

    def _heard(self, events: Iterable[Event]) -> None:
        for event in events:
            match event.payload:
                case FaceExposed() as fact:
                    self._exposed = tuple(fact.items)
                case FaceTokenIssued() as fact:
                    self._tokens[fact.name] = IssuedToken(
                        name=fact.name, digest=fact.token_digest, issued_ms=event.ts_ms
                    )
                case FaceTokenRevoked() as fact:
                    self._tokens.pop(fact.name, None)
