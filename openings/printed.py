"""What a pipeline would print, where the line itself says so.

Knows: ``echo``, ``printf``, ``cat``, and the common ways to write a command backwards or in another
alphabet (base64, base32, hex, ``rev``, ``tr``). Does not know: files, or any other program; then the answer
is None. Pure and bounded.
"""

from __future__ import annotations

import binascii
import posixpath
import re
from collections.abc import Sequence

from openings.expansion import UNKNOWN, ansi

__all__ = ["DECODERS", "FETCHERS", "Command", "printed"]

FETCHERS = frozenset({"nc", "ncat", "netcat", "socat", "telnet", "GET", "lwp-request"}) | frozenset(
    {"curl", "wget", "fetch", "aria2c", "lynx", "http", "https", "xh"}
)
"""Print what is somewhere on the network."""
DECODERS = frozenset({"base64", "base32", "basenc", "xxd", "rev", "tr", "uudecode", "openssl"})
"""Make text into other text so that a reader does not see what it is."""
_MAX_TEXT = 16_384


class Command:
    """One simple command of a line."""

    __slots__ = ("argv", "feed", "fetched", "inside", "lost", "piped", "reads", "writes")

    def __init__(self, *, piped: bool = False) -> None:
        self.argv: list[str] = []
        self.writes: list[str] = []
        """Targets of ``>`` and ``>>``."""
        self.reads: list[str] = []
        self.piped = piped
        """Its input is the output of the command before it."""
        self.feed: str | None = None
        """Its input, by a here-string, a here-document or a process substitution."""
        self.fetched: str | None = None
        """The program that fetches one of its words from the network."""
        self.lost = False
        """Some of it was nested too deep to be read."""
        self.inside: list[Command] = []
        """The commands of its substitutions."""

    @property
    def name(self) -> str:
        """Name of the program, without its folder; empty when there is none."""
        return posixpath.basename(self.argv[0]) if self.argv else ""


def printed(commands: Sequence[Command]) -> str | None:
    """The output of the commands, one after another; None where only running them would tell."""
    whole: list[str] = []
    for number, command in enumerate(commands):
        fed = command.feed
        if command.piped and whole:
            fed = whole.pop()
        output = _output(command, fed)
        if output is None or UNKNOWN in output:
            return None
        last = number + 1 == len(commands) or not commands[number + 1].piped
        whole.append("" if command.writes and last else output[:_MAX_TEXT])
    return "".join(whole)


def _output(command: Command, fed: str | None) -> str | None:
    words = command.argv[1:]
    if command.name == "echo":
        return _echo(words)
    if command.name == "printf":
        return _printf(words)
    return None if fed is None else _passed_on(command.name, words, fed)


def _passed_on(name: str, words: list[str], fed: str) -> str | None:
    """What a filter makes of its input."""
    flags = [word for word in words if word.startswith("-")]
    made: str | None = None
    if name == "cat" and words in ([], ["-"]):
        made = fed
    elif name in {"base64", "base32"} and any("d" in flag.lstrip("-")[:6] or flag == "-D" for flag in flags):
        made = _decoded(name, fed)
    elif name == "xxd" and any("r" in flag for flag in flags):
        made = _hexed(fed)
    elif name == "rev":
        made = "\n".join(line[::-1] for line in fed.split("\n"))
    elif name == "tr":
        made = _translated(words, fed)
    return made


def _echo(words: list[str]) -> str:
    escapes = False
    while words and re.fullmatch(r"-[neE]+", words[0]):
        escapes = escapes or "e" in words[0]
        words = words[1:]
    text = " ".join(words)
    return (ansi(text) if escapes else text) + "\n"


def _printf(words: list[str]) -> str | None:
    if words[:1] == ["--"]:
        words = words[1:]
    if not words or words[0] == "-v":
        return None
    form, values = ansi(words[0]), words[1:]
    holes = form.count("%s") + form.count("%b") + form.count("%q")
    if not holes:
        return form
    made = []
    for start in range(0, max(1, len(values)), holes):
        batch = iter(values[start : start + holes])
        made.append(re.sub(r"%[sbq]", lambda _, batch=batch: ansi(next(batch, "")), form))  # type: ignore[misc]
        if sum(map(len, made)) > _MAX_TEXT:
            break
    return "".join(made)


def _decoded(name: str, text: str) -> str | None:
    packed = "".join(text.split())
    try:
        if name == "base32":
            import base64

            return base64.b32decode(packed + "=" * (-len(packed) % 8), casefold=True).decode(
                "utf-8", "replace"
            )
        return binascii.a2b_base64(packed + "=" * (-len(packed) % 4)).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def _hexed(text: str) -> str | None:
    packed = re.sub(r"(?m)^[0-9a-f]{8}:|\s", "", text)
    try:
        return bytes.fromhex(packed).decode("utf-8", "replace")
    except ValueError:
        return None


def _translated(words: list[str], text: str) -> str | None:
    if words and words[0] == "-d" and len(words) == 2:
        gone = _set(words[1])
        return "".join(char for char in text if char not in gone)
    if len(words) != 2 or words[0].startswith("-"):
        return None
    source, target = _set(words[0]), _set(words[1])
    if not target:
        return None
    target += target[-1] * (len(source) - len(target))
    return text.translate({ord(a): b for a, b in zip(source, target, strict=False)})


def _set(word: str) -> str:
    def run(found: re.Match[str]) -> str:
        first, last = ord(found.group(1)), ord(found.group(2))
        return "".join(map(chr, range(first, min(last, first + 255) + 1)))

    named = word.replace("[:lower:]", "a-z").replace("[:upper:]", "A-Z").replace("[:digit:]", "0-9")
    return re.sub(r"(.)-(.)", run, ansi(named), flags=re.DOTALL)
