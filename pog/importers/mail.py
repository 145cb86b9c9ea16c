"""Mail: single messages, Maildir, mbox. Headers and the text part; attachments are named, never stored.

Foreign through and through: what a mail says is data, whatever it says.
"""

from __future__ import annotations

import email
import email.policy
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.utils import getaddresses, parsedate_to_datetime
from html import unescape
from pathlib import Path
from typing import Any

from pog.importers.source import (
    Problem,
    clean,
    clean_line,
    is_address,
    open_regular,
    read_bounded,
    stable_id,
)
from runloop.digest import blob_digest
from runloop.events import DocumentImported, Payload

__all__ = ["is_maildir", "parse_message", "read_mbox", "read_message"]

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_MBOX_BYTES = 1024 * 1024 * 1024
MAX_PARTS = 200
MAX_PEOPLE = 200
MAX_HTML_CHARS = 1024 * 1024
MAX_HEADER = 64 * 1024
"""Bytes of one header, and of one that says what a part is: the standard library's readers of headers take
time that grows with the square of the length."""
MAX_PART_HEADER = 4 * 1024


class _Bounded(email.policy.EmailPolicy):
    """Refuses long headers before anything reads them, wherever in the message they stand."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name = sourcelines[0].partition(":")[0]
        limit = MAX_PART_HEADER if name.lower().startswith("content-") else MAX_HEADER
        if sum(map(len, sourcelines)) > limit:
            raise ValueError(f"its header {name[:40]!r} is larger than {limit} bytes")
        return super().header_source_parse(sourcelines)

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Headers of parts stay text: taking their parameters apart for each part costs too much."""
        if name.lower().startswith("content-"):
            return "".join(value.splitlines())
        return super().header_fetch_parse(name, value)


_POLICY = _Bounded()


def is_maildir(path: Path) -> bool:
    """Whether a folder is a Maildir."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def read_message(path: Path, name: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    """The one message of a file that people know as ``name``."""
    data = read_bounded(path, MAX_MESSAGE_BYTES, report)
    if data is not None:
        yield from _reported(data, name, str(path), report)


def read_mbox(path: Path, name: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    """The messages of an mbox file (mboxrd and mboxo)."""
    for number, data in enumerate(_cut_mbox(path, report), 1):
        if len(data) > MAX_MESSAGE_BYTES:
            report(Problem(f"{path}, message {number}", f"it is larger than {MAX_MESSAGE_BYTES} bytes"))
            continue
        yield from _reported(data, name, f"{path}, message {number}", report)


def parse_message(data: bytes, source: str) -> DocumentImported:
    """A message as a document; raises :class:`ValueError` in words when it is none.

    Its id is that of its Message-ID, or of its bytes where it has none.
    """
    message = email.message_from_bytes(data, policy=_POLICY)
    if not any(name in message for name in ("from", "date", "subject", "message-id", "to")):
        raise ValueError("it has none of the headers of a mail")
    body, attachments = _body(message)
    names = "\n".join(f"[attachment: {name}]" for name in attachments)
    text = clean("\n\n".join(part for part in (body.strip(), names) if part))
    message_id = clean_line(_header(message, "message-id"))
    return DocumentImported(
        document=stable_id("mail", message_id or blob_digest(data)),
        type="mail",
        title=clean_line(_header(message, "subject")) or "(no subject)",
        text=text,
        content_digest=blob_digest(text.encode()),
        people=_people(message),
        written_ms=_moment(_header(message, "date")),
        source=clean_line(source),
    )


def _reported(data: bytes, name: str, place: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    try:
        message = parse_message(data, name)
    except RecursionError:
        report(Problem(place, "its parts are nested too deeply"))
    # The standard library's parser promises not to raise, and does: on hostile headers, of many types.
    except Exception as error:
        report(Problem(place, str(error) or type(error).__name__))
    else:
        yield message


def _cut_mbox(path: Path, report: Callable[[Problem], None]) -> Iterator[bytes]:
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_MBOX_BYTES:
                report(Problem(str(path), f"it is larger than {MAX_MBOX_BYTES} bytes"))
                return
            lines: list[bytes] = []
            size, blank, begun = 0, True, False
            for line in iter(lambda: file.readline(1024 * 1024), b""):
                if blank and line.startswith(b"From "):
                    if begun:
                        yield b"".join(lines)
                    lines, size, begun = [], 0, True
                elif begun and size <= MAX_MESSAGE_BYTES:  # a larger one is reported, not kept
                    plain = line[1:] if line.lstrip(b">").startswith(b"From ") and line[:1] == b">" else line
                    lines.append(plain)
                    size += len(plain)
                blank = not line.strip(b"\r\n")
            if begun:
                yield b"".join(lines)
            else:
                report(Problem(str(path), "it is not an mbox: no line begins with 'From '"))
    except OSError as error:
        report(Problem(str(path), error.strerror or str(error)))


def _header(message: Message, name: str) -> str:
    try:
        return str(message.get(name, ""))
    # Headers are parsed when they are asked for; a hostile one may raise anything.
    except Exception:
        raw = next((value for key, value in message.raw_items() if key.lower() == name), "")
        return str(raw)


def _words(text: str) -> str:
    """A text with its encoded words read."""
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except Exception:  # a hostile one may raise anything
        return text


def _people(message: Message) -> list[str]:
    found: dict[str, None] = {}
    for name in ("from", "to", "cc", "reply-to"):
        for _, address in getaddresses([_header(message, name)[:65_536]]):
            if is_address(address):
                found[address] = None
    return list(found)[:MAX_PEOPLE]


def _moment(text: str) -> int | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _body(message: EmailMessage | Message) -> tuple[str, list[str]]:
    """The text (plain where there is one, else HTML without its marks) and the names of what is attached."""
    plain: list[str] = []
    html: list[str] = []
    attachments: list[str] = []
    for number, part in enumerate(message.walk()):
        if number >= MAX_PARTS:
            attachments.append("more parts than are read")
            break
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or kind not in {"text/plain", "text/html"}:
            attachments.append(clean_line(_words(part.get_filename() or kind), 200))
        else:
            (plain if kind == "text/plain" else html).append(_text(part))
    if any(text.strip() for text in plain):
        return "\n\n".join(plain), attachments
    return "\n\n".join(map(_without_marks, html)), attachments


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return str(data or "")
    charset = part.get_content_charset("utf-8")
    try:
        return data[:MAX_HTML_CHARS].decode(charset, "replace")
    except (LookupError, ValueError):  # a charset nobody knows, or no text codec at all
        return data[:MAX_HTML_CHARS].decode("utf-8", "replace")


class _Ahead:
    """Finds marks in a text and remembers which are not ahead any more: reading stays linear, whatever the
    text (the standard library's HTML parser looks for the end of each ``<!--`` anew)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._gone: set[re.Pattern[str]] = set()
        self.looks = 0
        """How often the text was searched."""

    def __call__(self, pattern: re.Pattern[str], start: int) -> re.Match[str] | None:
        if pattern in self._gone:
            return None
        self.looks += 1
        found = pattern.search(self._text, start)
        if found is None:
            self._gone.add(pattern)
        return found


_SILENT = frozenset({"head", "title", "template"})
_BLOCKS = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "blockquote"})
_RAW = {"script": re.compile(r"</script", re.IGNORECASE), "style": re.compile(r"</style", re.IGNORECASE)}
_OPEN = re.compile("<")
_TAG = re.compile(r"(/?)([a-zA-Z][a-zA-Z0-9]{0,31})?")
_ENDS = {"!--": re.compile("-->"), "!": re.compile(">"), "?": re.compile(">")}
_STOP = re.compile(r">|=[ \t\r\n]{0,64}([\"'])")
_QUOTES = {'"': re.compile('"'), "'": re.compile("'")}


def _tag_end(ahead: _Ahead, place: int) -> int | None:
    """Where the tag that begins before ``place`` ends; a ``>`` within a quoted value is none."""
    while (stop := ahead(_STOP, place)) is not None:
        quote = stop[1]
        closed = ahead(_QUOTES[quote], stop.end()) if quote else None
        if not quote:
            return stop.end()
        place = closed.end() if closed else stop.end()
    return None


def _without_marks(html: str, ahead: _Ahead | None = None) -> str:
    """The words of HTML: no scripts, no styles, a new line for every block. Looks at no place twice."""
    html = html[:MAX_HTML_CHARS]
    ahead = ahead or _Ahead(html)
    parts: list[str] = []
    silent, place = 0, 0
    while (opened := ahead(_OPEN, place)) is not None:
        if not silent:
            parts.append(unescape(html[place : opened.start()]))
        begin = opened.end()
        other = next((mark for mark in _ENDS if html.startswith(mark, begin)), None)
        tag = _TAG.match(html, begin)
        assert tag is not None
        if other is not None:
            ended = ahead(_ENDS[other], begin)
            place = ended.end() if ended else begin
        elif tag[2] is None or (end := _tag_end(ahead, tag.end())) is None:
            place = begin
            if not silent:
                parts.append("<")
        else:
            name, place = tag[2].lower(), end
            if name in _SILENT:
                silent = max(0, silent + (-1 if tag[1] else 1))
            elif name in _RAW and not tag[1]:
                closing = ahead(_RAW[name], place)
                place = closing.start() if closing else len(html)
            elif name in _BLOCKS and not tag[1] and not silent:
                parts.append("\n")
    if not silent:
        parts.append(unescape(html[place:]))
    lines = [" ".join(line.split()) for line in "".join(parts).split("\n")]
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line or before]
    return "\n".join(kept).strip()
