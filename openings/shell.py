"""Reading a line as a shell would, far enough to see which commands it would run and on what.

Knows: quotes, escapes, operators, redirections, here-documents, substitutions, and the variables that the
line sets itself. Does not know: what is harmful (``deny``), the machine's variables, its files or aliases: it
runs nothing. Substitutions whose output is plain from the line (``$(echo rm)``) stand as that output, others
as ``$()``. Linear in the length of the line, but for substitutions, which are read once more per level.
"""

from __future__ import annotations

import re

from openings.expansion import BUILT_IN, UNKNOWN, ansi, braces, value_of
from openings.printed import FETCHERS, Command, printed

__all__ = ["MAX_LEVEL", "Command", "parse"]

MAX_LEVEL = 4
"""Substitutions inside each other that are still looked into."""

_PLAIN = re.compile(r"[^\s\\'\"`$#<>|&;(){}]+")
_OPERATOR = re.compile(r"&&|\|\||;;|\|&|[;|&\n()]")
_REDIRECT = re.compile(r"<<<|<<-?|<>|>>|>\||>&|<&|>|<")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|[@*?!$#0-9-])", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(?:\[[^\]]*\])?(\+?)=", re.ASCII)
_PAIRS = {"()": re.compile(r"[()]"), "{}": re.compile(r"[{}]")}
_DECLARES = frozenset({"export", "declare", "local", "readonly", "typeset", "set"})
_MAX_VALUE = 1_024


def parse(line: str, level: int = 0, *, comments: bool = True) -> list[Command]:
    """The simple commands of a line, those inside substitutions first. An open quote ends at the end."""
    return _Reader(line, level, dict(BUILT_IN), comments).read()


class _Reader:
    def __init__(self, text: str, level: int, known: dict[str, str], comments: bool) -> None:
        self.text, self.level, self.known, self.comments = text, level, known, comments
        self.at = 0
        self.inner: list[Command] = []
        self.commands: list[Command] = []
        self.command = Command()
        self.word: list[str] | None = None
        self.quoted = False
        self.braced = False
        self.redirect: str | None = None
        self.cut: set[str] = set()
        """Variables whose value is too long to be looked at."""
        self.lists = {"@"}
        """Variables that stand for several words even in quotes."""
        self.awaited: list[tuple[Command, str]] = []
        """Here-documents whose text begins behind the end of this line."""

    def read(self) -> list[Command]:
        size = len(self.text)
        while self.at < size:
            plain = _PLAIN.match(self.text, self.at)
            if plain is not None:
                self._put(plain.group())
                self.at = plain.end()
            else:
                self._special(self.text[self.at])
        self._end_command(piped=False)
        return [*self.inner, *self.commands]

    def _special(self, char: str) -> None:
        if char == "\\":
            if self.text[self.at + 1 : self.at + 2] != "\n":  # else: the line goes on
                self._put(self.text[self.at + 1 : self.at + 2], quoted=True)
            self.at += 2
        elif char == "'":
            end = self._until("'", self.at + 1)
            self._put(self.text[self.at + 1 : end], quoted=True)
            self.at = end + 1
        elif char == '"':
            self._double()
        elif char in "$`":
            self._dollar(split=True)
        elif char == "#" and self.word is None and self.comments:
            self.at = self._until("\n", self.at)
        elif char in "{}#":
            self.braced = self.braced or char == "{"
            self._put(char)
            self.at += 1
        elif char.isspace() and char != "\n":
            self._end_word()
            self.at += 1
        else:
            self._operator()

    # --- operators and redirections ---------------------------------------------------------------

    def _operator(self) -> None:
        at = self.at + self.text.startswith("&>", self.at)
        redirect = _REDIRECT.match(self.text, at)
        if redirect is not None:
            if self.text[redirect.end() : redirect.end() + 1] == "(" and redirect.group() in "<>":
                self._substitution(redirect.end() + 1, ")", process=True)
                return
            if self.word is not None and not self.quoted and "".join(self.word).isdigit():
                self.word = None  # the number of a descriptor
            self._end_word()
            self.redirect = redirect.group()
            self.at = redirect.end()
            return
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:  # white space that a shell would take for a letter
            self._put(self.text[self.at])
            self.at += 1
            return
        self._end_word()
        if (
            operator.group() == "("
            and self.command.argv
            and self.text[operator.end() : operator.end() + 1] != ")"
        ):
            self._substitution(operator.end(), ")")  # fish: (command)
            return
        self._end_command(piped=operator.group() in {"|", "|&"})
        self.at = operator.end()
        if operator.group() == "\n":
            self._here_documents()

    def _here_documents(self) -> None:
        for command, mark in self.awaited:
            lines: list[str] = []
            while self.at < len(self.text):
                end = self._until("\n", self.at)
                line, self.at = self.text[self.at : end], end + 1
                if line.strip("\t") == mark:
                    break
                lines.append(line)
            command.feed = "\n".join(lines)
            self._within(command.feed)
        self.awaited = []

    # --- quotes, variables, substitutions ---------------------------------------------------------

    def _double(self) -> None:
        self._put("", quoted=True)
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char in "$`":
                self._dollar(split=False)
                continue
            if char == "\\":
                self.at += 1
                char = self.text[self.at : self.at + 1]
                if char not in {"$", "`", '"', "\\", "\n", ""}:
                    char = "\\" + char
                char = "" if char == "\n" else char
            self._put(char, quoted=True)
            self.at += 1
        self.at += 1

    def _dollar(self, *, split: bool) -> None:
        """What begins with ``$`` or a backquote."""
        text, at = self.text, self.at
        if text[at] == "`":
            self._substitution(at + 1, "`", split=split)
        elif text.startswith("$((", at):
            end = text.find("))", at)
            self._put(UNKNOWN)
            self.at = len(text) if end < 0 else end + 2
        elif text.startswith("$(", at):
            self._substitution(at + 2, ")", split=split)
        elif text.startswith("${", at):
            end = self._closing(at + 2, "{}")
            body = text[at + 2 : end]
            self.command.lost = self.command.lost or any(body.startswith(name) for name in self.cut)
            self._within(body)
            self._value(value_of(body, self.known), split or body.partition("[")[0] in self.lists)
            self.at = end + 1
        elif split and text.startswith("$'", at):
            end = at + 2
            while end < len(text) and text[end] != "'":
                end += 1 + (text[end] == "\\")
            self._put(ansi(text[at + 2 : end]), quoted=True)
            self.at = end + 1
        elif split and text.startswith('$"', at):
            self.at += 1
        else:
            variable = _VARIABLE.match(text, at)
            if variable is None:
                self._put("$")
                self.at += 1
            else:
                name = variable.group(1)
                self.command.lost = self.command.lost or name in self.cut
                self._value(self.known.get(name, variable.group()), split or name in self.lists)
                self.at = variable.end()

    def _value(self, value: str, split: bool) -> None:
        """A value in the word, or as several words where it stands without quotes."""
        if not split:
            self._put(value, quoted=True)
            return
        between = known if (known := self.known["IFS"]) != BUILT_IN["IFS"] else ""
        parts = re.split(f"[ \t\n{re.escape(between)}]+", value)
        for number, part in enumerate(parts):
            if number:
                self._end_word()
            if part:
                self._put(part)

    def _substitution(self, start: int, closing: str, *, split: bool = True, process: bool = False) -> None:
        end = self._until("`", start) if closing == "`" else self._closing(start, "()")
        content, self.at = self.text[start:end], end + 1
        if self.level >= MAX_LEVEL:
            self.command.lost = True
            self._put(UNKNOWN)
            return
        inside = _Reader(content, self.level + 1, dict(self.known), self.comments).read()
        self.inner.extend(inside)
        self.command.inside += inside
        fetcher = next((one.name for one in inside if one.name in FETCHERS), None)
        self.command.fetched = self.command.fetched or fetcher
        output = printed(inside)
        if process:
            self.command.feed = self.command.feed or output
            self._put(UNKNOWN)
        elif output is None:
            self._put(UNKNOWN)
        else:
            self._value(output.rstrip("\n"), split)

    def _within(self, text: str) -> None:
        """Note the commands of substitutions in a text that is no command itself."""
        if "$(" not in text and "`" not in text:
            return
        if self.level >= MAX_LEVEL:
            self.command.lost = True
            return
        words = '"' + text.replace('"', " ") + '"'
        self.inner += _Reader(words, self.level + 1, dict(self.known), self.comments).read()

    def _closing(self, start: int, pair: str) -> int:
        depth = 1
        for found in _PAIRS[pair].finditer(self.text, start):
            depth += 1 if found.group() == pair[0] else -1
            if depth == 0:
                return found.start()
        return len(self.text)

    def _until(self, char: str, start: int) -> int:
        found = self.text.find(char, start)
        return len(self.text) if found < 0 else found

    # --- words and commands -----------------------------------------------------------------------

    def _put(self, text: str, *, quoted: bool = False) -> None:
        if self.word is None:
            self.word, self.quoted, self.braced = [], False, text == "{" or self.braced
        self.word.append(text)
        self.quoted = self.quoted or quoted

    def _end_word(self) -> None:
        if self.word is None:
            return
        word, braced = "".join(self.word), self.braced
        self.word, self.braced = None, False
        if self.redirect is not None:
            self._redirected(word)
        elif word not in {"{", "}", "!"} or self.quoted:
            words = braces(word) if braced and "," in word else [word]
            self.command.lost = self.command.lost or words is None
            self.command.argv += words or [word]

    def _redirected(self, word: str) -> None:
        if self.redirect == "<<<":
            self.command.feed = word
        elif self.redirect in {"<<", "<<-"}:
            self.awaited.append((self.command, word))
        elif self.redirect in {">", ">>", ">|", "<>", ">&"}:
            self.command.writes.append(word)
        else:
            self.command.reads.append(word)
        self.redirect = None

    def _end_command(self, *, piped: bool) -> None:
        self._end_word()
        self.redirect = None
        command = self.command
        if command.argv or command.writes or command.reads or command.lost:
            self._remember(command.argv, command.feed)
            self.commands.append(command)
        self.command = Command(piped=piped)

    def _remember(self, argv: list[str], feed: str | None) -> None:
        """Variables that the line sets: ``A=1``, ``export A=1``, ``for a in 1 2``, ``set -- 1 2``."""
        if argv and argv[0] in _DECLARES:
            words = argv[1:]
            if argv[0] == "set" and "--" in words:
                given = words[words.index("--") + 1 :]
                for name in ("@", "*"):
                    self._set(name, " ".join(given))
                for number, word in enumerate(given[:9], 1):
                    self._set(str(number), word)
            elif argv[0] == "set" and len(words) > 1 and not words[0].startswith("-"):
                self._set(words[0], " ".join(words[1:]))  # fish
        elif argv[:1] == ["for"] and len(argv) > 3 and argv[2] == "in":
            self._set(argv[1], " ".join(argv[3:]))
            self.lists.add(argv[1])
            return
        else:
            words = argv
        if argv[:1] == ["read"] and len(argv) > 1 and feed is not None:
            self._set(argv[-1], feed.strip())
        elif argv[:2] == ["printf", "-v"] and len(argv) > 3:
            told = Command()
            told.argv = ["printf", *argv[3:]]
            self._set(argv[2], (printed([told]) or UNKNOWN))
        for word in words:
            found = _ASSIGNMENT.match(word)
            if found is None:
                return
            before = self.known.get(found.group(1), "") if found.group(2) else ""
            self._set(found.group(1), (before + word[found.end() :]))

    def _set(self, name: str, value: str) -> None:
        self.cut.discard(name)
        if len(value) > _MAX_VALUE:
            self.cut.add(name)
            value = UNKNOWN
        self.known[name] = value
