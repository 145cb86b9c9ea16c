"""Reading a line as a shell would, far enough to see which commands it would run and on what.

Knows: quotes, escapes, operators, redirections, command substitution, ``$HOME`` and ``$IFS``. Does not know:
what is harmful (``deny``), and no other variables, globs or aliases: it runs nothing and expands nothing.
Linear in the length of the line, except that the text of a substitution is read once more per level.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Command", "parse"]

_MAX_LEVEL = 4
"""Substitutions inside each other that are still looked into."""

_OPERATORS = ("&&", "||", ";;", "|&", ";", "|", "&", "\n", "(", ")")
_REDIRECT = re.compile(r"(?:\d*|&)(?:>>|>\||>&|<<<|<<|<>|>|<)&?")
_HOME = re.compile(r"\$(?:HOME\b|\{HOME\})")
_IFS = re.compile(r"\$(?:IFS\b|\{IFS\})")


@dataclass(kw_only=True)
class Command:
    """One simple command of a line."""

    argv: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    """Targets of ``>`` and ``>>``."""
    piped: bool = False
    """Its input is the output of the command before it."""


def parse(line: str, level: int = 0) -> list[Command]:
    """The simple commands of a line, those inside substitutions first. An open quote ends at the end."""
    return _Reader(_IFS.sub(" ", _HOME.sub("~", line)), level).read()


class _Reader:
    def __init__(self, text: str, level: int) -> None:
        self.text, self.level, self.at = text, level, 0
        self.inner: list[Command] = []
        self.commands: list[Command] = []
        self.command = Command()
        self.word: list[str] | None = None
        self.was_quoted = False
        self.redirect: str | None = None

    def read(self) -> list[Command]:
        while self.at < len(self.text):
            self._step()
        self._end_command(piped=False)
        return [*self.inner, *self.commands]

    def _step(self) -> None:
        char = self.text[self.at]
        if char == "\\":
            self._put(self.text[self.at + 1 : self.at + 2], quoted=True)
            self.at += 2
        elif char == "'":
            self._single()
        elif char == '"':
            self._double()
        elif char == "`" or self.text.startswith("$(", self.at):
            self._substitution()
        elif char == "$" and self.text[self.at + 1 : self.at + 2] in {"'", '"'}:
            self.at += 1
        elif char == "#" and self.word is None:
            self.at = self._until("\n", self.at)
        elif not self._operator(char):
            self._put(char)
            self.at += 1

    def _operator(self, char: str) -> bool:
        if char in " \t\r":
            self._end_word()
            self.at += 1
            return True
        redirect = _REDIRECT.match(self.text, self.at) if self.word is None or char in "<>" else None
        if redirect is not None:
            self._end_word()
            self.redirect = redirect.group()
            self.at = redirect.end()
            return True
        for operator in _OPERATORS:
            if self.text.startswith(operator, self.at):
                self._end_command(piped=operator in {"|", "|&"})
                self.at += len(operator)
                return True
        return False

    def _single(self) -> None:
        end = self._until("'", self.at + 1)
        self._put(self.text[self.at + 1 : end], quoted=True)
        self.at = end + 1

    def _double(self) -> None:
        self._put("", quoted=True)
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "`" or self.text.startswith("$(", self.at):
                self._substitution()
                continue
            if char == "\\":
                self.at += 1
            self._put(self.text[self.at : self.at + 1], quoted=True)
            self.at += 1
        self.at += 1

    def _substitution(self) -> None:
        """Note the commands inside; what they would print is not known and stands as ``$()``."""
        if self.text[self.at] == "`":
            end = self._until("`", self.at + 1)
            content, self.at = self.text[self.at + 1 : end], end + 1
        else:
            end = self._closing(self.at + 2)
            content, self.at = self.text[self.at + 2 : end], end + 1
        if self.level < _MAX_LEVEL:
            self.inner.extend(parse(content, self.level + 1))
        self._put("$()")

    def _closing(self, start: int) -> int:
        depth = 1
        for index in range(start, len(self.text)):
            depth += {"(": 1, ")": -1}.get(self.text[index], 0)
            if depth == 0:
                return index
        return len(self.text)

    def _until(self, char: str, start: int) -> int:
        found = self.text.find(char, start)
        return len(self.text) if found < 0 else found

    def _put(self, text: str, *, quoted: bool = False) -> None:
        if self.word is None:
            self.word, self.was_quoted = [], False
        self.word.append(text)
        self.was_quoted = self.was_quoted or quoted

    def _end_word(self) -> None:
        if self.word is None:
            return
        word = "".join(self.word)
        self.word = None
        if self.redirect is not None:
            if ">" in self.redirect:
                self.command.writes.append(word)
            self.redirect = None
        elif word not in {"{", "}", "!"} or self.was_quoted:
            self.command.argv.append(word)

    def _end_command(self, *, piped: bool) -> None:
        self._end_word()
        self.redirect = None
        if self.command.argv or self.command.writes:
            self.commands.append(self.command)
        self.command = Command(piped=piped)
