"""What is seen in a line: small numbers with names, each of which a person can check.

Knows: words, flags, paths, operators, how sentences look. Does not know: what follows from them (``router``
weighs them), files or the machine. Linear in the line.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Mapping

from openings.lexicon import (
    BUILTINS,
    EVERYDAY,
    GREETINGS,
    QUESTIONS,
    SMALL,
    SUBCOMMANDS,
    TAKES_WORDS,
    VERBS_AFTER,
)
from openings.shell import Command

__all__ = ["Seen", "look"]

_MAX_WORDS = 200
"""Words that are looked at."""
_TOKEN = re.compile(r"(?:(?<![\w.])'[^']*'|\"[^\"]*\"|[^\s\"])+|\"")
_FLAG = re.compile(r"(?:--?[A-Za-z][\w-]*(?:=.*)?|-[A-Za-z0-9]+|\+[a-z%].*|--)\Z", re.DOTALL)
_PATH = re.compile(
    r"(?:\.{1,2}/|~/|/)\S*|\S+/\S*|[\w@.-]*\w\.[a-z][a-z0-9]{0,4}\Z|\.{1,2}\Z|~\Z|\.\w[\w.]*\Z|\S*\*\S*|\$\{?\w+\}?\S*"
)
_NUMBER = re.compile(r"[\d.,:%+-]*\d[\d.,:%]*[smhdkMG]?\Z")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=.*\Z", re.DOTALL)
_OPERATOR = re.compile(r"(?:\|\|?|&&|;;?|[<>]{1,3}|\d?>>?(?:&\d)?|&>?>?|2>&1|\|&)\Z")
_GLUED = re.compile(r"[^\s|&;]\||\|[^\s|&]|\w[<>]{1,2}[\w./]|\w;\Z|\d>/|\$\(|`\S")
_PROGRAM = re.compile(r"(?:\./|\.\./|~/|/)[\w.]")
_CONTRACTION = re.compile(r"[a-z](?:n't|'(?:s|re|ve|ll|d|m))\b|[a-z]s'(?:\s|\Z)", re.IGNORECASE)
_NAME = re.compile(r"[A-Z][a-z]+\Z")
_WORD = re.compile(r"[a-z]{2,}\Z")
_CODE = re.compile(r"[_={}\[\]@:^%#+]|\w-\w|\d[a-z]|[a-z]\d|[A-Z]{2}")
_WRITTEN = re.compile(r"[\\\"'`$()|&;<>]")
"""What a shell takes out of a word."""
_END = re.compile(r"[^\s./](?:[.!]|…)\s*\Z")
_LETTERS = re.compile(r"[^\W\d_]", re.UNICODE)
_BEFORE_COMMANDS = frozenset({"sudo", "doas", "time", "nohup", "exec", "command", "builtin", "env", "nice"})
_MORE = {"prose": 4, "plain": 5, "words": 20}
_MOST = 2


class Seen:
    """What was seen in a line."""

    __slots__ = (
        "asks",
        "command",
        "first",
        "later",
        "line",
        "numbers",
        "path",
        "set_first",
        "single",
        "syntax",
    )

    def __init__(self, line: str) -> None:
        self.line = line
        self.first = ""
        """The word that would be the command."""
        self.command = False
        """Whether that word is a command."""
        self.later = False
        """Whether a command stands behind an operator."""
        self.path = False
        self.set_first = False
        self.asks = False
        self.single = False
        """One word, and it looks like the name of a program."""
        self.syntax: list[str] = []
        self.numbers: Mapping[str, float] = {}
        """Feature -> how much of it."""


def look(text: str, parsed: list[Command], commands: Container[str]) -> Seen:
    """Look at a line. ``parsed``: its commands; ``commands``: what this machine knows as one."""
    seen = Seen(text)
    tokens = _TOKEN.findall(text)[:_MAX_WORDS]
    seen.set_first = bool(tokens) and _ASSIGNMENT.match(tokens[0]) is not None
    while len(tokens) > 1 and _ASSIGNMENT.match(tokens[0]):
        tokens = tokens[1:]
    while len(tokens) > 1 and tokens[0] in _BEFORE_COMMANDS and _is_command(tokens[1], commands):
        tokens = tokens[1:]
    argv = next((one.argv for one in parsed if one.argv), [])
    spoken = next((word for word in argv if not _ASSIGNMENT.match(word)), "")
    first = tokens[0] if tokens else ""
    seen.first = spoken if spoken and _WRITTEN.search(first) else first.rstrip(",:") or first
    seen.command = _is_command(seen.first, commands)
    seen.later = any(one.argv and _is_command(one.argv[0], commands) for one in parsed[1:])
    seen.path = _PROGRAM.match(seen.first) is not None and "@" not in seen.first
    seen.numbers = _numbers(text, seen.first, tokens, parsed, commands)
    numbers = seen.numbers
    bare = seen.first.casefold().strip(".,!?")
    seen.asks = text.rstrip().endswith(("?", "？")) or (bare in QUESTIONS and not seen.command)
    seen.syntax = [name for name in ("flags", "operators") if numbers.get(name)]
    seen.single = len(tokens) == 1 and bare not in GREETINGS and bare not in QUESTIONS and (
        re.fullmatch(r"[A-Za-z0-9_][\w.+-]{0,39}", text, re.ASCII) is not None
    )  # fmt: skip
    return seen


def _is_command(word: str, commands: Container[str]) -> bool:
    return (
        word in BUILTINS
        or word in commands
        or (word.startswith("/") and posixpath.basename(word) in commands)
    )


def _numbers(
    text: str, first: str, tokens: list[str], parsed: list[Command], commands: Container[str]
) -> Mapping[str, float]:
    rest = tokens[1:]
    operands = [token for token in rest if not _FLAG.match(token) and not _OPERATOR.match(token)]
    bare = [token.strip(".,;:!?\"'()").casefold() for token in operands if token[0] not in "\"'"]
    small = [word in SMALL for word in bare]
    second = bare[0] if bare and operands and rest and operands[0] == rest[0] else ""
    known = SUBCOMMANDS.get(first, frozenset())
    codes = [
        token for token in operands
        if token[0] not in "\"'" and _CODE.search(token.rstrip(":")) and not _PATH.match(token)
    ]  # fmt: skip
    paths = [
        token for token in operands
        if token[0] not in "\"'" and _PATH.match(token.rstrip(",;")) and not _NUMBER.match(token)
        and token.casefold() not in {"e.g.", "i.e.", "and/or"}
    ]  # fmt: skip
    found: dict[str, float] = {
        "words": len(tokens),
        "flags": sum(1 for token in rest if _FLAG.match(token)),
        "operators": sum(1 for token in rest if _OPERATOR.match(token))
        + sum(1 for token in tokens[:-1] if len(token) > 1 and token[-1] == ";")
        + bool(_GLUED.search(text)) + any(one.piped for one in parsed if one.argv),
        "paths": len(paths),
        "figures": sum(1 for token in operands if _NUMBER.match(token)),
        "quoted": sum(1 for token in rest if token[0] in "\"'" and len(token) > 2),
        "codes": len(codes),
        "subcommand": second in known or (not rest and first in {"make", "ls", "pwd"}),
        "command_next": bool(second) and len(operands) == 1 and second in commands and second != first,
        "alone": not rest,
        "one_word": len(rest) == 1 and len(operands) == 1,
        "everyday": first in EVERYDAY,
        "takes_words": first in TAKES_WORDS,
        "prose": sum(small),
        "small_next": second in SMALL,
        "prose_share": 2 * sum(small) / len(bare) if bare else 0,
        "verb_next": second in VERBS_AFTER,
        "asks": text.rstrip().endswith("?"),
        "sentence": (_END.search(text) is not None and len(rest) > 1)
        + (re.search(r"[a-z], \w", text) is not None),
        "apostrophes": len(_CONTRACTION.findall(text)),
        "capital": bool(_NAME.match(tokens[0])) if tokens else False,
        "names": sum(1 for token in operands if _NAME.match(token.strip(".,;:!?"))),
        "plain": sum(1 for word in bare if _WORD.match(word) and word not in SMALL),
        "foreign": not text.isascii() and any(not letter.isascii() for letter in _LETTERS.findall(text)),
    }  # fmt: skip
    return {name: min(_MORE.get(name, _MOST), float(value)) for name, value in found.items() if value}
