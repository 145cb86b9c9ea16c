"""Lines that are never to be run: what they do is looked at as a shell would parse it, not as a substring.

Knows: which command a wrapper, a shell, an interpreter or a pipe would run in the end, and what of that is a
ruin (``ruin``). Does not know: anything about intent; a sentence that mentions such a line is no such line.
What is written so that it cannot be read (nested too deep, decoded into a shell, fetched into a shell) is
denied too. This is a courtesy at the prompt, not a boundary: guests have no shell, and ``rlp`` runs no shell
line itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from openings.expansion import NAMED, UNKNOWN
from openings.inside import CARRIERS, INTERPRETERS, SHELLS, after_c, carried, coded, quoted
from openings.printed import DECODERS, FETCHERS, Command, printed
from openings.ruin import STARTUP, is_critical, normal, overwritten, ruin
from openings.shell import MAX_LEVEL, parse

__all__ = ["denied"]

_NONE: frozenset[str] = frozenset()
_WRAPPERS: Mapping[str, frozenset[str]] = {
    "sudo": frozenset("ugpCThrRtD") | {"user", "group", "prompt", "host", "chdir", "chroot"},
    "doas": frozenset("uC"),
    "pkexec": frozenset({"user"}),
    "run0": frozenset({"user"}),
    "env": frozenset("uCS") | {"unset", "chdir"},
    "nohup": _NONE,
    "nice": frozenset("n") | {"adjustment"},
    "ionice": frozenset("cnp"),
    "chrt": frozenset("TPD"),
    "taskset": _NONE,
    "time": frozenset("fo"),
    "timeout": frozenset("ks") | {"kill-after", "signal"},
    "stdbuf": frozenset("ioe"),
    **dict.fromkeys(("unbuffer", "fakeroot", "valgrind", "rlwrap", "torsocks", "proxychains"), _NONE),
    **dict.fromkeys(("dbus-run-session", "xvfb-run", "numactl", "prlimit", "catchsegv"), _NONE),
    "setsid": _NONE,
    "systemd-run": frozenset("upMHt") | {"unit", "property", "uid", "gid"},
    "systemd-inhibit": _NONE,
    "caffeinate": frozenset("tw"),
    "unshare": _NONE,
    "nsenter": frozenset("t") | {"target"},
    "firejail": _NONE,
    "strace": frozenset("eopsu"),
    "ltrace": frozenset("eopsu"),
    "gdb": _NONE,
    "flock": frozenset("wE"),
    "chroot": _NONE,
    "parallel": frozenset("jI"),
    "watch": frozenset("n") | {"interval"},
    "entr": _NONE,
    "command": _NONE,
    "builtin": _NONE,
    "exec": frozenset("a"),
    "coproc": _NONE,
    "busybox": _NONE,
    "toybox": _NONE,
    "xargs": frozenset("IindLnPsaE"),
    **dict.fromkeys(
        ("then", "do", "else", "elif", "if", "while", "until", "begin", "and", "or", "not"), _NONE
    ),
    **dict.fromkeys(("noglob", "nocorrect", "function", "-", "please", "run", "execute", "!"), _NONE),
}
"""Commands that run the rest of their words, with those of their options that take a value."""
_LEADING = {"timeout": 1, "taskset": 1, "chroot": 1, "flock": 1, "chrt": 1, "function": 1}
"""Words of their own before the command they run."""

_HOOKS = frozenset({"PROMPT_COMMAND", "BASH_ENV", "ENV", "PS1", "PS4", "EDITOR", "PAGER", "GIT_SSH_COMMAND"})
_BOMB = re.compile(r"([\w:.]{1,32})\(\)\{\1(?:\|&?\1)+&?\};?\1")
_BOMB_IN_WORDS = re.compile(r"function\s+([\w:.]{1,32})\s*\{\s*\1\s*\|\s*\1\s*&?\s*;?\s*\}")
_BOMB_OF_SCRIPTS = re.compile(r"\$0\s*[|&]\s*(?:\./)?\$0|%0\s*\|\s*%0")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_CRON_TIMES = re.compile(r"(?m)^\s*(?:@\w+|(?:[\d*/,-]+\s+){5})\s*")
_MAX_CHAIN = 64
"""Commands in one pipe that are looked through; more is no line that a person typed."""
_UNSEEN = "it is written so that what it runs cannot be read"
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", re.DOTALL)
_LOOKALIKES = str.maketrans("‐‑‒–—−⁄∕⧸╱", "------////")


def denied(line: str, level: int = 0) -> str | None:
    """Why a line must never be run, in words; None when it may be. Total, and linear in the line."""
    for reading in _readings(line):
        reason = _bomb(reading) or _Line(level).judge(parse(reading))
        if reason is None and "#" in reading:  # zsh has no comments at its prompt
            reason = _Line(level).judge(parse(reading, comments=False))
        if reason is not None:
            return reason
    return None


def _readings(line: str) -> Iterator[str]:
    """The line as it is, and as it looks: without what a terminal hides, with letters for their doubles."""
    yield line
    if not (line.isascii() and line.isprintable()):
        import unicodedata

        shown = _ANSI.sub("", line)
        while "\b" in shown[1:]:
            shown = re.sub(r"[^\x08]\x08", "", shown, count=0).lstrip("\b")
        plain = "".join(
            char if char in "\n\t" or unicodedata.category(char)[0] != "C" else ""
            for char in unicodedata.normalize("NFKC", shown.translate(_LOOKALIKES))
        )
        plain = re.sub(r"[^\S\n\t]", " ", plain)
        if plain != line:
            yield plain


def _bomb(line: str) -> str | None:
    found = (
        _BOMB.search("".join(line.split())) or _BOMB_IN_WORDS.search(line) or _BOMB_OF_SCRIPTS.search(line)
    )
    return None if found is None else "it is a fork bomb"


class _Line:
    """What the commands of one line do, one after another: where they are, and what they leave for later."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.place: str | None = None
        self.files: dict[str, str] = {}
        """What was written in this line: the text, or ``"\\0"`` and the program that fetched it."""

    def judge(self, commands: list[Command]) -> str | None:
        chain: list[Command] = []
        for command in commands:
            chain = [*chain, command] if command.piped else [command]
            if len(chain) > _MAX_CHAIN:
                return _UNSEEN
            reason = self._command(command, chain)
            if reason is not None:
                return reason
        return None

    def _command(self, command: Command, chain: list[Command]) -> str | None:
        if command.lost:
            return _UNSEEN
        reason = overwritten(command.writes, self.place)
        argv, fed = _unwrap(command.argv)
        if reason is not None:
            return reason
        text = command.feed if command.feed is not None else printed(chain[:-1]) if len(chain) > 1 else None
        if fed:
            argv = [*argv, *_listed(chain, text)]
        reason = self._hooks(command) or self._kept(command, chain)
        if reason is not None or not argv:
            return reason
        return self._run(argv, command, chain, text)

    def _run(self, argv: list[str], command: Command, chain: list[Command], text: str | None) -> str | None:
        name = posixpath.basename(argv[0])
        if NAMED.search(argv[0]):
            first = NAMED.sub("", argv[0])
            argv = [first, *argv[1:]] if first or len(argv) == 1 else argv[1:]
            name = posixpath.basename(argv[0])
        if name in {"cd", "pushd", "chdir"}:
            self._walk(argv)
        for inner in self._inner(name, argv, command, text):
            if self.level >= MAX_LEVEL:
                return _UNSEEN
            reason = denied(inner, self.level + 1)
            if reason is not None:
                return reason
        return self._unseen(name, argv, command, chain, text) or ruin(self._listed(argv, command), self.place)

    def _listed(self, argv: list[str], command: Command) -> list[str]:
        """The words, with the places that a substitution lists in the place of what it would print."""
        if not any(UNKNOWN in word for word in argv[1:]):
            return argv
        places: list[str] = []
        for one in command.inside:
            if one.name == "find":
                places += one.argv[1:] if ruin([*one.argv, "-delete"], self.place) else []
            elif one.name in {"ls", "dirname", "realpath", "readlink", "compgen"}:
                places += one.argv[1:]
        return [*argv, *(word for word in places if is_critical(posixpath.dirname(word) or word, self.place))]

    def _walk(self, argv: list[str]) -> None:
        where = next((word for word in argv[1:] if not word.startswith("-") or word == "-"), "~")
        if where == "-":
            self.place = None
        elif where.startswith(("/", "~")) or self.place is not None:
            self.place = normal(where.rstrip("*") or "/", self.place)

    # --- command lines inside of commands ---------------------------------------------------------

    def _inner(self, name: str, argv: list[str], command: Command, text: str | None) -> Iterator[str]:
        """The lines that a command is told to run, by an argument, a file of this line, or its input."""
        words = argv[1:]
        if name == "eval":
            yield " ".join(words)
        elif name in SHELLS or name in {"source", ".", "su", "runuser", "at", "batch"}:
            yield from after_c(words)
            operands = [word for word in words if not word.startswith(("-", "+"))]
            yield from self._written(operands[:1])
            if text is not None:
                yield text
        elif INTERPRETERS.match(name):
            yield from coded([*words, *([] if text is None else [text])])
        elif name in CARRIERS:
            yield from carried(name, words)
            if text is not None and name in {"crontab", "ssh", "make"}:
                yield _CRON_TIMES.sub("", text)
        elif name == "find" or name.startswith("fd"):
            acts = [at for at, word in enumerate(argv) if word.startswith(("-exec", "--exec", "-ok", "-x"))]
            for at in acts:
                yield " ".join(quoted(word) for word in argv[at + 1 :])
        else:
            yield from self._written(argv[:1])

    def _written(self, words: list[str]) -> Iterator[str]:
        kept = (self.files.get(word.removeprefix("./"), "\0") for word in words)
        yield from (text for text in kept if not text.startswith("\0"))

    def _unseen(
        self, name: str, argv: list[str], command: Command, chain: list[Command], text: str | None
    ) -> str | None:
        """Why a shell must not be given what nobody has seen."""
        runs = name in SHELLS or name in {"eval", "source", "."} or INTERPRETERS.match(name) is not None
        if not runs:
            if command.fetched is not None and argv[0].startswith(UNKNOWN):
                return f"it runs what {command.fetched} fetches, unseen"
            return self._fetched(argv[0])
        if command.fetched is not None:
            return f"it runs what {command.fetched} fetches, unseen"
        told = [word for word in argv[1:] if not word.startswith("-") or word == "-"]
        listens = (
            not told
            or told[0] in {"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}
            or "-s" in argv
            or name in {"source", "."}
        )
        if INTERPRETERS.match(name) and told and told[0] != "-":
            listens = False
        listens = listens or _unwrap(command.argv)[1]
        before = [_unwrap(one.argv)[0] for one in chain[:-1]]
        names = [posixpath.basename(one[0]) for one in before if one]
        for source in names if listens else ():
            if source in FETCHERS:
                return f"it runs what {source} fetches, unseen"
            if source in DECODERS and text is None and name in SHELLS:
                return _UNSEEN
        return next((reason for word in told[:1] if (reason := self._fetched(word))), None)

    def _fetched(self, word: str) -> str | None:
        kept = self.files.get(word.removeprefix("./"), "")
        return f"it runs what {kept[1:]} fetches, unseen" if kept.startswith("\0") else None

    # --- what is left for later -------------------------------------------------------------------

    def _hooks(self, command: Command) -> str | None:
        for word in command.argv:
            name, equals, value = word.partition("=")
            if equals and name in _HOOKS and self.level < MAX_LEVEL:
                reason = denied(value, self.level + 1)
                if reason is not None:
                    return reason
        return None

    def _kept(self, command: Command, chain: list[Command]) -> str | None:
        """Note the files that the line writes; lines that would be run at the next start are judged now."""
        argv = _unwrap(command.argv)[0]
        name = posixpath.basename(argv[0]) if argv else ""
        targets = command.writes if name != "tee" else [word for word in argv[1:] if not word.startswith("-")]
        sources = {posixpath.basename(one.argv[0]) for one in chain if one.argv}
        fetcher = next(iter(sorted(sources & FETCHERS)), None) or (name if name in FETCHERS else None)
        if fetcher is not None:
            targets = [*targets, *_downloads(argv)]
        text = printed(chain[:-1]) if name == "tee" else printed(_silently(chain)) if targets else None
        for target in targets:
            if fetcher is not None:
                self.files[target.removeprefix("./")] = f"\0{fetcher}"
            elif text is not None:
                self.files[target.removeprefix("./")] = text
                later = STARTUP.match(normal(target, self.place)) and self.level < MAX_LEVEL
                line = _CRON_TIMES.sub("", text)
                # The files of cron name a user first.
                reason = denied(f"{line}\n{line.partition(' ')[2]}", self.level + 1) if later else None
                if reason is not None:
                    return f"{reason}, at the next start"
        return None


def _silently(chain: list[Command]) -> list[Command]:
    """The chain as it prints, had it no ``>`` at its end."""
    last = chain[-1]
    copy = Command(piped=last.piped)
    copy.argv, copy.feed = last.argv, last.feed
    return [*chain[:-1], copy]


def _downloads(argv: list[str]) -> list[str]:
    """Where a fetcher puts what it fetched."""
    found = []
    for at, word in enumerate(argv[1:], 1):
        if word in {"-o", "-O", "--output", "--output-document"} and at + 1 < len(argv):
            found.append(argv[at + 1])
        elif word.startswith(("--output=", "--output-document=")):
            found.append(word.partition("=")[2])
        elif "://" in word:
            found.append(posixpath.basename(word.partition("?")[0]))
    return [name for name in found if name and name != "-"]


def _listed(chain: list[Command], text: str | None) -> list[str]:
    """What ``xargs`` would be handed: the words that were printed, or the places a search begins at."""
    if text is not None:
        return text.replace("\0", " ").split()
    source = chain[-2].argv if len(chain) > 1 else []
    if source and posixpath.basename(source[0]) == "find" and ruin([*source, "-delete"]) is None:
        return []
    return [word for word in source[1:] if is_critical(word)]


def _unwrap(argv: list[str]) -> tuple[list[str], bool]:
    """Strip assignments and commands that run the rest; and whether that was ``xargs``."""
    fed = False
    rest = list(argv)
    while rest:
        if _ASSIGNMENT.match(rest[0]):
            rest.pop(0)
            continue
        name = posixpath.basename(rest[0])
        if name.startswith(("ld-linux", "ld.so", "ld-musl")):  # the loader runs the program it is given
            name = "command"
        if name not in _WRAPPERS:
            break
        fed = fed or name == "xargs"
        rest.pop(0)
        while rest and ((rest[0].startswith("-") and rest[0] != "-") or _ASSIGNMENT.match(rest[0])):
            option = rest.pop(0)
            if option == "--":
                break
            if name == "env" and option.startswith(("-S", "--split-string")):
                given = option[2:] if option.startswith("-S") else option.partition("=")[2]
                rest = [*given.split(), *rest] if given else [*(rest[0].split() if rest else []), *rest[1:]]
            elif rest and _takes_value(name, option):
                rest.pop(0)
        if name in {"watch", "entr"} and len(rest) == 1:
            rest = rest[0].split()
        del rest[: _LEADING.get(name, 0)]
    return rest, fed


def _takes_value(name: str, option: str) -> bool:
    if option.startswith("--"):
        return "=" not in option and option[2:] in _WRAPPERS[name]
    return len(option) >= 2 and option[-1] in _WRAPPERS[name] and not any(
        letter in _WRAPPERS[name] for letter in option[1:-1]
    )  # fmt: skip
