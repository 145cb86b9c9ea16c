"""Secrets: found at the moment of use, never printed, scrubbed from what comes back.

Knows: how a secret is named, that it is read anew at each use (so a rotated one works without a restart), who
is told of a use. Does not know: how a place keeps it (``broker.vault``), how foreign text is scrubbed
(``broker.scrubber``), which provider needs which, or whether an agent may use it (``broker.secret_ops``).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.vault import Place
from runloopd.broker.vault.plain import PlainFile

__all__ = [
    "Held",
    "Known",
    "Secret",
    "SecretRef",
    "SecretStore",
    "check_name",
]

MAX_CHARS = 16_384
_NAME = re.compile(r"runloop/[a-z0-9_-]{1,64}/[A-Za-z0-9_.-]{1,128}\Z")
_KNOWN = 64
"""Secrets the log is kept free of: those used last."""


class Secret:
    """A value that only :meth:`reveal` gives away: no ``str()``, ``repr()``, format, pickle or encoder."""

    __slots__ = ("_value", "name")

    def __init__(self, value: str, *, name: str) -> None:
        # Checked here, because HTTP libraries quote a header they refuse, value and all.
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            raise UsageError(
                f"the secret {name} is empty, or has blanks around it, line breaks or non-ASCII characters",
                hint=f"set {name} again",
                code="secret.malformed",
            )
        if len(value) > MAX_CHARS:
            raise UsageError(
                f"the secret {name} has more than {MAX_CHARS} characters",
                hint=f"set {name} again",
                code="secret.malformed",
            )
        self._value = value
        self.name = name

    def reveal(self) -> str:
        """The value itself. Call it in the expression that sends it, and keep no variable of it."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret cannot be copied or serialised")


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRef:
    """Where the configuration says a key lies; never the key itself."""

    env: str | None = None
    """Name of an environment variable the daemon was started with."""
    name: str | None = None
    """``runloop/<scope>/<name>``, looked up in every place, in order."""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"${self.env}" if self.env else str(self.name)


def check_name(name: str) -> str:
    """``name`` if it names a secret. Raises :class:`UsageError` (``secret.name``)."""
    if not _NAME.match(name):
        raise UsageError(
            f"{name[:128]!r} is no name of a secret",
            hint="names are runloop/<scope>/<name>, such as runloop/models/openai",
            code="secret.name",
        )
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One secret in one place. Neither its value nor its length."""

    name: str
    place: str


class Known:
    """The secrets this process used last, for the log: whatever goes wrong with one, its text stays out."""

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}
        self._scrubber = Scrubber()
        self._changing = threading.Lock()

    def note(self, secret: Secret) -> None:
        """From any thread. A rotated secret is known beside the one it replaced."""
        with self._changing:
            value = secret.reveal()
            if value in self._secrets:
                return
            self._secrets[value] = secret
            while len(self._secrets) > _KNOWN:
                del self._secrets[next(iter(self._secrets))]
            self._scrubber = Scrubber(self._secrets.values())

    def text(self, text: str) -> str:
        """``text`` without any of them."""
        return self._scrubber.text(text)


class SecretStore:
    """Finds and keeps secrets. Every method may block on a file or keyring: call them off the event loop."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        places: Sequence[Place] = (),
        known: Known | None = None,
    ) -> None:
        """``environ``: what the daemon was started with (see ``runloopd.privacy``). ``places``: in the order
        they are asked."""
        self._environ = environ
        self._places = tuple(places)
        self._known = known or Known()
        self._changing = threading.Lock()
        self.on_use: Callable[[str, str, str], None] = lambda name, by, to: None
        """Told of each use that says ``by`` whom: name, by, to. From any thread; must not raise or wait."""

    def find(self, ref: SecretRef, *, by: str = "", to: str = "") -> Secret:
        """The secret ``ref`` names, for ``by`` (``models.openai``), to be sent ``to`` (a place).

        Raises :class:`NotFoundError` (``secret.missing``) naming the place, :class:`RefusedError`
        (``secret.file``) for a secrets file others can read, :class:`UsageError` for a malformed value.
        """
        value = self._environ.get(ref.env) if ref.env is not None else self._value(ref.name or "")
        if not value or not value.strip():
            raise _missing(ref)
        secret = Secret(value.strip(), name=ref.label)
        self._known.note(secret)
        if by:
            self.on_use(ref.label, by, to)
        return secret

    # --- for the operator -------------------------------------------------------------------------

    def listed(self) -> list[Held]:
        """Every secret a place can list, in the order of the places."""
        return [
            Held(name=name, place=place.name)
            for place in self._places
            for name in sorted(place.names())
            if _NAME.match(name)
        ]

    def place_of(self, name: str) -> str | None:
        """The place a secret is found in; None where there is none."""
        return next((place.name for place in self._places if place.get(name) is not None), None)

    def home_of(self, name: str, wanted: str | None = None) -> str:
        """The place that would keep this secret: ``wanted``, else the first that can.

        Raises :class:`UsageError` (``secret.place``), or :class:`ConflictError` (``secret.fixed``) where a
        place that is asked before it has one of that name and cannot be changed.
        """
        able = [place for place in self._places if place.writable]
        chosen = next((place for place in able if wanted in (None, place.name)), None)
        if chosen is None:
            raise UsageError(
                f"no place {wanted or ''} takes secrets here".replace("  ", " "),
                hint=f"one of: {', '.join(place.name for place in able) or 'none'}",
                code="secret.place",
            )
        for before in self._places[: self._places.index(chosen)]:
            if not before.writable and before.get(name) is not None:
                raise ConflictError(
                    f"{name} is set by {before.name}, which comes before {chosen.name}",
                    hint=f"change it in {before.name}",
                    code="secret.fixed",
                )
        return chosen.name

    def put(self, name: str, value: str, place: str) -> None:
        """Keep a secret in ``place``, and nowhere else that can be written."""
        secret = Secret(value, name=check_name(name))
        with self._changing:
            chosen = self._place(place)
            chosen.put(name, secret.reveal())
            for other in self._places:
                if other is not chosen and other.writable:
                    other.drop(name)

    def drop(self, name: str) -> list[str]:
        """Forget a secret wherever it can be written; the places that had it.

        Raises :class:`NotFoundError`, or ``secret.fixed`` where it lies only where nobody can write.
        """
        with self._changing:
            dropped = [place.name for place in self._places if place.writable and place.drop(name)]
            if dropped:
                return dropped
            for place in self._places:
                if not place.writable and place.get(name) is not None:
                    place.drop(name)  # raises, with the way to do it
            raise NotFoundError(
                f"there is no secret {name}", hint="'rlp secret list' shows them", code="secret.missing"
            )

    def move_over(self, place: str) -> list[str]:
        """Move the secrets of the old ``secrets.toml`` into ``place``, then remove the file; their names.

        All or none: the file goes only when each of its entries is found elsewhere.
        """
        old = next((place for place in self._places if isinstance(place, PlainFile)), None)
        entries = {} if old is None else old.entries()
        if old is None or not entries:
            return []
        with self._changing:
            for name, value in entries.items():
                if not isinstance(value, str):
                    raise UsageError(
                        f"{name[:128]!r} in secrets.toml is not a text; nothing was removed",
                        hint="correct that line, then try again",
                        code="secret.malformed",
                    )
                Secret(value.strip(), name=check_name(name))
            chosen = self._place(place)
            for name, value in entries.items():
                before = next((one for one in self._places if one.get(name) is not None), old)
                if before is old:  # what was set since then is newer
                    chosen.put(name, value.strip())
            old.remove()
        return sorted(entries)

    def _place(self, name: str) -> Place:
        return next(place for place in self._places if place.name == name)

    def _value(self, name: str) -> str | None:
        for place in self._places:
            value = place.get(name)
            if value is not None:
                return value
        return None


def _missing(ref: SecretRef) -> RunloopError:
    if ref.env is not None:
        return NotFoundError(
            f"the environment variable {ref.env} is not set where the daemon runs",
            hint=f"export {ref.env}=… and restart the daemon with 'rlp daemon stop'",
            code="secret.missing",
        )
    return NotFoundError(
        f"the secret {ref.name} is set nowhere", hint=f"rlp secret set {ref.name}", code="secret.missing"
    )
