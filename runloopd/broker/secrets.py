"""Keys of providers: found at the moment of use, never printed, scrubbed from what comes back.

Knows: where a key may lie (environment, secrets file, keyring), how to keep its text out of messages, logs
and answers, also when it comes back encoded or cut in two by a stream (attacks.md K1, K2). Does not know:
which provider needs which key, or whether it may be used.
"""

from __future__ import annotations

import base64
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from runloop.errors import NotFoundError, RefusedError, UsageError

__all__ = ["Scrubber", "Secret", "SecretRef", "SecretStore", "StreamScrubber", "keyring_lookup"]

_MASK = "[secret]"
_MIN_SCRUBBED = 6
"""Shorter values ("x" for a local server) are no secrets; scrubbing them would shred ordinary text."""


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


def _forms(value: str) -> Iterable[str]:
    """The texts a key may come back as: itself, hex, URL and base64 at each of the three byte offsets."""
    yield value
    raw = value.encode()
    yield raw.hex()
    yield raw.hex().upper()
    yield quote(value, safe="")
    yield value.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/")
    for offset in range(3):
        # The characters that depend only on the key, wherever it starts inside a longer encoded text.
        text = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        begin, end = (0, 2, 3)[offset], len(text) - (1 if (offset + len(raw)) % 3 else 0)
        for core in (text[begin:end], text[begin:]):
            yield core
            yield core.translate(str.maketrans("+/", "-_"))


class Scrubber:
    """Replaces secrets in foreign text by ``[secret]``, in any of the encodings they are known to leak in."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret.reveal()) >= _MIN_SCRUBBED
            for form in _forms(secret.reveal())
            if len(form) >= _MIN_SCRUBBED
        }
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def __repr__(self) -> str:
        return f"<scrubber of {len(self._forms)} forms>"

    def text(self, text: str) -> str:
        """``text`` without any known form of any secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text

    def stream(self) -> StreamScrubber:
        """A scrubber for text that arrives in pieces."""
        return StreamScrubber(self, self._forms)


class StreamScrubber:
    """Holds back the few characters that may be the beginning of a secret until it is clear they are not."""

    def __init__(self, scrubber: Scrubber, forms: tuple[str, ...]) -> None:
        self._scrubber = scrubber
        self._forms = forms
        self._held = ""

    def feed(self, piece: str) -> str:
        """What may be shown of everything fed so far and not yet shown."""
        text = self._scrubber.text(self._held + piece)
        keep = max((_overlap(text, form) for form in self._forms), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """The rest, once the stream is over."""
        rest, self._held = self._scrubber.text(self._held), ""
        return rest


def _overlap(text: str, form: str) -> int:
    """Length of the longest proper beginning of ``form`` that ``text`` ends with."""
    for size in range(min(len(text), len(form) - 1), 0, -1):
        if text.endswith(form[:size]):
            return size
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRef:
    """Where the configuration says a key lies; never the key itself."""

    env: str | None = None
    """Name of an environment variable of the daemon."""
    name: str | None = None
    """``runloop/<scope>/<name>``, looked up in the secrets file, then in the keyring."""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"${self.env}" if self.env else str(self.name)


class SecretStore:
    """Finds keys. Reads at each use, so that a rotated key works without a restart."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        file: Path | None = None,
        keyring: Callable[[str], str | None] | None = None,
    ) -> None:
        self._environ = environ
        self._file = file
        self._keyring = keyring

    def find(self, ref: SecretRef) -> Secret:
        """The secret ``ref`` names; may block on file or keyring, so call it off the event loop.

        Raises :class:`NotFoundError` (``secret.missing``) naming the place, :class:`RefusedError`
        (``secret.file``) for a secrets file others can read, :class:`UsageError` for a malformed value.
        """
        if ref.env is not None:
            value = self._environ.get(ref.env)
            if value:
                return Secret(value.strip(), name=ref.label)
            raise NotFoundError(
                f"the environment variable {ref.env} is not set where the daemon runs",
                hint=f"export {ref.env}=… and restart the daemon with 'rlp daemon stop'",
                code="secret.missing",
            )
        name = ref.name or ""
        value = self._from_file(name) or (self._keyring(name) if self._keyring else None)
        if value:
            return Secret(value.strip(), name=ref.label)
        raise NotFoundError(
            f"the secret {name} is in neither the secrets file nor the keyring",
            hint=f'add the line "{name}" = "…" to {self._file}' if self._file else "set api_key_env instead",
            code="secret.missing",
        )

    def _from_file(self, name: str) -> str | None:
        if self._file is None:
            return None
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unfit(self._file, error.strerror or "cannot be opened") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise _unfit(self._file, "it is not a regular file of yours")
            if status.st_mode & 0o077:
                raise _unfit(self._file, f"others can read it (mode {stat.S_IMODE(status.st_mode):o})")
            text = os.read(descriptor, 1 << 20)
        finally:
            os.close(descriptor)
        try:
            table = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # Without the cause on purpose: a parser may quote the document.
            raise _unfit(self._file, "it is not TOML") from None
        value = table.get(name)
        if value is not None and not isinstance(value, str):
            raise _unfit(self._file, f'"{name}" is not a string')
        return value


def _unfit(file: Path, why: str) -> RefusedError:
    return RefusedError(
        f"the secrets file {file} cannot be used: {why}",
        hint=f"it must be TOML, owned by you: chmod 600 {file}",
        code="secret.file",
    )


def keyring_lookup(name: str) -> str | None:
    """The value the keyring holds for ``name``; None without a keyring. Blocks; may ask the user."""
    try:
        import keyring
    except ImportError:
        return None
    try:
        value = keyring.get_password("runloop", name)
    except Exception:
        # Backends raise whatever they like; an unusable keyring is one that does not hold the key.
        return None
    return value if isinstance(value, str) else None
