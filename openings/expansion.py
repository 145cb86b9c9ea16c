"""What a shell makes of a word before it runs anything: escapes, variables set in the same line, braces.

Knows: ``$'\\x72'``, ``${name}`` with the common modifiers, ``{a,b}``. Does not know: the machine; a variable
that the line itself does not set stays written out (``$NAME``), and so does a glob. Bounded: a word never
becomes more than some dozens of words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["BUILT_IN", "NAMED", "UNKNOWN", "ansi", "braces", "value_of"]

UNKNOWN = "$()"
"""Stands for what only running something would tell."""

BUILT_IN: Mapping[str, str] = {
    "HOME": "~",
    "IFS": " ",
    "PATH": "/usr/bin:/bin",
    "SHELL": "/bin/sh",
    **dict.fromkeys(("@", "*", "1", "2", "3", "4", "5", "6", "7", "8", "9", "!", "-"), ""),
}
"""What holds at every prompt: a shell there has no arguments, so ``r$@m`` is ``rm``."""

NAMED = re.compile(r"\$(?:\w+|\{\w+\})", re.ASCII)
"""A variable that the line does not set: it may be empty."""
_MAX_BRACES = 256
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|0?([0-7]{1,3})|(.))", re.DOTALL
)
_LETTERS = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "E": "\x1b",
    "f": "\f",
    "v": "\v",
}
_NAME = re.compile(r"!?([A-Za-z_]\w*|[@*#?$!0-9-])(?:\[[^\]]*\])?", re.ASCII)
_CASES: Mapping[str, Callable[[str], str]] = {
    ",,": str.lower, ",": str.lower, "@L": str.lower, "^^": str.upper, "^": str.upper, "@U": str.upper,
}  # fmt: skip
_MAX_SLICE = 4_096
_INNERMOST = re.compile(r"\{([^{}]*,[^{}]*)\}")


def ansi(text: str) -> str:
    """Text as ``$'...'``, ``echo -e`` and ``printf`` read it: with its escapes carried out."""

    def one(found: re.Match[str]) -> str:
        hexadecimal = found.group(1) or found.group(2) or found.group(3)
        if hexadecimal is not None:
            number = int(hexadecimal, 16)
            return chr(number) if number < 0x110000 else ""
        if found.group(4) is not None:
            return chr(int(found.group(4), 8) & 0xFF)
        return _LETTERS.get(found.group(5), found.group(5))

    return _ESCAPE.sub(one, text)


def value_of(body: str, known: Mapping[str, str]) -> str:
    """What ``${body}`` stands for, by the variables that are known; written out where that is not enough."""
    named = _NAME.match(body)
    if named is None:
        return UNKNOWN
    name, rest = named.group(1), body[named.end() :]
    if name == "IFS":
        return " "
    if body.startswith("!"):
        name = known.get(name, name)  # the name is itself in a variable
    value = known.get(name)
    if value is None:
        if rest[:2] in {":-", ":="} or rest[:1] in {"-", "="}:
            return rest.lstrip(":")[1:]  # what it would be if it is not set
        return f"${{{name}:?}}" if rest.startswith((":?", "?")) else f"${{{name}}}"
    if name in {"HOME", "PATH", "SHELL"} and rest[:1] in {"%", "#"}:
        return ""  # a way to write a slash or nothing; the shortest reading is the worst
    return _modified(value, rest)


def _modified(value: str, rest: str) -> str:
    """A known value with what stands behind its name: a slice, another case, a replacement, a cut."""
    sliced = re.fullmatch(r":\s*(-?\d{1,4})(?::\s*(-?\d{1,4}))?", rest)
    replaced = re.fullmatch(r"(//?)([^/*?\[]+)(?:/(.*))?", rest, re.DOTALL)
    made = UNKNOWN
    if sliced is not None:
        start, length = int(sliced.group(1)), int(sliced.group(2) or _MAX_SLICE)
        made = value[start : length if length < 0 else start + length]
    elif rest in _CASES:
        made = _CASES[rest](value)
    elif rest.startswith((":+", "+")):
        made = rest.lstrip(":")[1:]
    elif replaced is not None:
        made = value.replace(
            replaced.group(2), replaced.group(3) or "", 1 if replaced.group(1) == "/" else -1
        )
    elif not rest or rest.startswith((":-", ":=", ":?", "-", "=", "?")):
        made = value
    elif rest.startswith("##*"):
        made = value.rpartition(rest[3:])[2]
    elif rest.startswith("#*"):
        made = value.partition(rest[2:])[2]
    return made


def braces(word: str) -> list[str] | None:
    """``/{bin,etc}`` as the words it becomes; None when they are too many to be looked at."""
    words = [word]
    changed = True
    while changed:
        changed = False
        made: list[str] = []
        for one in words:
            found = _INNERMOST.search(one)
            if found is None:
                made.append(one)
                continue
            changed = True
            made += [one[: found.start()] + part + one[found.end() :] for part in found.group(1).split(",")]
        if len(made) > _MAX_BRACES:
            return None
        words = made
    return words
