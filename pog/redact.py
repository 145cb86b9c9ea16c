"""Masks e-mail addresses and secrets by their value, wherever they stand in a JSON value.

Knows: what an address and the usual kinds of keys look like, and the encodings (base64, hex, URL) both may
hide in. Does not know: who may see what. Masking is by value because a column's name says nothing: an alias,
a JSON path or a sentence carries the same address (spec/pog.md, Redaction).

Nothing is ever refused for what it looks like: a wrong guess costs a few characters of what is shown, never
the work (attacks.md K3). Every pattern is bounded, so that the time is linear in the text, hostile or not,
and a long text is looked at in pieces, so that masking it in a thread holds up nobody else's.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["find_emails", "find_secrets", "mask", "mask_text"]

# From the sign to the end; the sign may be percent-encoded, the domain has a dot or is localhost.
_DOMAIN = re.compile(r"(@|%40)((?:[\w-]{1,63}\.){1,8}[\w-]{1,63}|localhost\b)")
_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_MAX_KEY = 16_384
_SECRETS = re.compile(
    r"\b(?:sk|rk|pk)[-_](?:[A-Za-z0-9]{1,24}[-_]){0,4}(?=[A-Za-z]{0,255}\d)[A-Za-z0-9]{20,256}\b"
    r"|gh[pousr]_[A-Za-z0-9]{30,255}\b|github_pat_[A-Za-z0-9_]{40,255}\b"
    r"|glpat-[A-Za-z0-9_-]{20,64}\b"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[A-Za-z0-9_-]{35}\b"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|\beyJ[A-Za-z0-9_-]{8,512}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{16,2048}"
    r"|(?<=[Bb]earer )(?=[A-Za-z._~+/-]{0,256}\d)[A-Za-z0-9._~+/-]{20,2048}=*"
)
_PIECE = 16_384
"""Characters looked at in one go: while they are, no other thread has the interpreter."""
_LONGEST = 16_384
"""Characters on end with no place to cut that are still looked into; what is longer is no text to read."""
_BETWEEN = re.compile(r"(?<![Bb]earer)[^\w.!#$%&'*+/=?^`{|}~@()-]")
"""What stands in no address, key or code, and so separates them."""
_LONG = "[long]"
_SECRET = "[secret]"  # noqa: S105
_ENCODED = "[encoded]"
_RUN = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
"""What may be base64."""
_HEX = re.compile(r"[0-9A-Fa-f]{12,}")
_QUOTED = re.compile(r"(?:%[0-9A-Fa-f]{2}|[\w.!~*'()+-]){2,}")
_PLAIN = re.compile(rb"[\x20-\x7e]{6,}")
_URLSAFE = str.maketrans("-_", "+/")


def mask(value: Any, *, emails: bool = True, known: Iterable[str] = ()) -> Any:
    """A copy of a JSON value with addresses and secrets masked in every string and every key.

    ``known`` are secrets to find literally, and in base64, hex and URL encoding.
    """
    spellings = _spellings(known)
    return _walk(value, emails, spellings)


def mask_text(text: str, *, emails: bool = True, known: Iterable[str] = ()) -> str:
    """The same for one text: ``john.doe@example.com`` becomes ``j***@e***.com``."""
    return _mask_text(text, emails, _spellings(known))


def find_emails(text: str) -> Iterator[str]:
    """The addresses that stand in a text as they are."""
    done = 0
    for match in _DOMAIN.finditer(text):
        start = match.start()
        while start > done and _LOCAL.match(text[start - 1]):
            start -= 1
        if start < match.start() and match[1] == "@":
            yield text[start : match.end()]
            done = match.end()


def find_secrets(text: str) -> Iterator[str]:
    """What looks like a key in a text as it is."""
    for begin in _KEY_BEGINS.finditer(text):
        end = _KEY_ENDS.search(text, begin.end(), begin.end() + _MAX_KEY)
        if end is not None:
            yield text[begin.start() : end.end()]
    for match in _SECRETS.finditer(text):
        yield match[0]


def _walk(value: Any, emails: bool, spellings: Collection[str]) -> Any:
    if isinstance(value, str):
        return _mask_text(value, emails, spellings)
    if isinstance(value, dict):
        return {_walk(key, emails, spellings): _walk(item, emails, spellings) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item, emails, spellings) for item in value]
    return value


def _mask_text(text: str, emails: bool, spellings: Collection[str]) -> str:
    for spelling in spellings:
        if spelling in text:
            text = text.replace(spelling, _SECRET)
    if "-----BEGIN " in text:
        text = _mask_keys(text)
    if len(text) <= 2 * _PIECE:
        return _mask_piece(text, emails)
    return "".join(_LONG if piece is None else _mask_piece(piece, emails) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str | None]:
    """A text cut where it makes no difference to what is found; None instead of what has no such place."""
    at = 0
    while len(text) - at > 2 * _PIECE:
        cut = _BETWEEN.search(text, at + _PIECE)
        end = len(text) if cut is None else cut.start()
        if end - at - _PIECE > _LONGEST:
            begin = max((place.end() for place in _BETWEEN.finditer(text, at, at + _PIECE)), default=at)
            yield text[at:begin]
            yield None
        else:
            yield text[at:end]
        at = end
    yield text[at:]


def _mask_piece(text: str, emails: bool) -> str:
    if len(text) >= 16:
        text = _SECRETS.sub(_SECRET, text)
    if emails and ("@" in text or "%40" in text):
        text = _mask_emails(text)
    if len(text) >= 12:
        text = _HEX.sub(lambda run: _decoded(run[0], _from_hex(run[0]), emails), text)
        text = _RUN.sub(lambda run: _decoded(run[0], _from_base64(run[0]), emails), text)
        if "%" in text:
            text = _QUOTED.sub(lambda run: _unquoted(run[0], emails), text)
    return text


def _mask_secrets(text: str) -> str:
    if len(text) < 16:
        return text
    return _SECRETS.sub(_SECRET, _mask_keys(text) if "-----BEGIN " in text else text)


def _mask_keys(text: str) -> str:
    """Private keys from their first line to their last, or to the end of the text where that is near.

    Not one pattern: it would look for the last line anew behind every first one.
    """
    ends = [(end.start(), end.end()) for end in _KEY_ENDS.finditer(text)]
    parts: list[str] = []
    done = 0
    for begin in _KEY_BEGINS.finditer(text):
        if begin.start() < done:
            continue
        place = bisect_left(ends, (begin.end(), 0))
        last, stop = ends[place] if place < len(ends) else (len(text), len(text))
        if last - begin.end() <= _MAX_KEY:
            parts += [text[done : begin.start()], _SECRET]
            done = stop
    return "".join([*parts, text[done:]])


def _decoded(run: str, readings: Iterable[bytes], emails: bool) -> str:
    """A run of letters; a word instead of it when an address or a key is what it encodes."""
    return _ENCODED if any(_tells(raw, emails) for raw in readings) else run


def _from_hex(run: str) -> Iterator[bytes]:
    """What a run may decode to, beginning at either of its first two letters."""
    for start in (0, 1):
        part = run[start:]
        yield bytes.fromhex(part[: len(part) & ~1])


def _from_base64(run: str) -> Iterator[bytes]:
    """What a run may decode to, beginning at each of its first four letters; hex was looked at already."""
    letters = run.rstrip("=").translate(_URLSAFE)
    if _HEX.fullmatch(letters):
        return
    for start in range(4):
        part = letters[start:]
        part = part[: len(part) - 1] if len(part) % 4 == 1 else part
        yield binascii.a2b_base64(part + "=" * (-len(part) % 4))


def _tells(raw: bytes, emails: bool) -> bool:
    """Whether bytes hold readable text with an address or a key in it."""
    for found in _PLAIN.finditer(raw):
        text = found[0].decode()
        if _mask_secrets(text) != text:
            return True
        if emails and "@" in text and _mask_emails(text) != text:
            return True
    return False


def _unquoted(run: str, emails: bool) -> str:
    if "%" not in run:
        return run
    plain = unquote(run, errors="replace")
    masked = _mask_secrets(plain)
    if emails and "@" in masked:
        masked = _mask_emails(masked)
    return run if masked == plain else masked


def _mask_emails(text: str) -> str:
    parts: list[str] = []
    done = 0
    for match in _DOMAIN.finditer(text):
        start = match.start()
        # Walk back over the local part however long it is: a bound would be a way past the mask.
        while start > done and _LOCAL.match(text[start - 1]):
            start -= 1
        if start == match.start():
            continue
        at, domain = match.groups()
        shown = f"{domain[0]}***.{domain.rpartition('.')[2]}" if "." in domain else "***"
        parts += [text[done:start], text[start], "***", at, shown]
        done = match.end()
    return "".join([*parts, text[done:]])


def _spellings(known: Iterable[str]) -> list[str]:
    """A secret as it may appear: plain, URL-quoted, hex, and base64 at each of the three alignments."""
    found: set[str] = set()
    for secret in known:
        raw = secret.encode()
        if len(raw) < 6:
            continue  # too short to be told from ordinary words
        found |= {secret, quote(secret, safe=""), raw.hex(), raw.hex().upper()}
        for shift in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(bytes(shift) + raw).decode().rstrip("=")
                # Drop the characters that also depend on what stands before and behind the secret.
                found.add(text[(0, 2, 3)[shift] : len(text) - (1 if (len(raw) + shift) % 3 else 0)])
    return sorted(found, key=len, reverse=True)
