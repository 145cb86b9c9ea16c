"""Where a prompt goes: a shell line, a wish for an agent, an opening with its parameters, or nowhere.

Knows: rules, tried in a fixed order, each of which says its name, what it saw and why it decided. Does not
know: models, files or the machine; openings and command names are handed in. Pure, linear, well under 5 ms,
and free of third-party imports, for it stands in front of every prompt.

The goals of an opening are what it listens for: ``write an email to {recipient} about {topic}``. A word of a
goal stands for its synonyms, articles do not matter, a ``{slot}`` takes all up to the next word of the goal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from openings.deny import denied
from openings.shell import parse

__all__ = ["COMMANDS", "MAX_PROMPT", "Routable", "Route", "route"]

MAX_PROMPT = 1_024
"""Characters; what is longer is a text, and for an agent."""
_MAX_WORDS = 200
"""Words that are looked at."""


class Routable(Protocol):
    """What the router wants to know of an opening."""

    @property
    def name(self) -> str: ...
    @property
    def goals(self) -> Collection[str]: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A decision, explained."""

    kind: Literal["shell", "agent", "opening", "denied"]
    target: str | None = None
    """Name of the opening; the command of a shell line."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the opening, as text."""
    rule: str
    """Stable name of the rule that decided."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """What was seen."""
    reason: str
    """One sentence for people."""

    def to_json(self) -> dict[str, Any]:
        """The route as one JSON object."""
        return {
            "kind": self.kind,
            "target": self.target,
            "params": dict(self.params),
            "rule": self.rule,
            "features": dict(self.features),
            "reason": self.reason,
        }


_COMMANDS_WORDS = """
    alias apt apt-get awk bash bat bc bg btop bunzip2 bzip2 cal cargo cat cd chmod chown clear cmake cmp
    code column comm cp crontab curl cut date dd df diff dig dirname dmesg dnf docker du echo emacs env
    export fd fg file find free fzf gcc gdb git go grep gunzip gzip head help htop id ifconfig ip jobs
    journalctl jq kill killall kubectl less ln locate ls lsblk lsof ltrace lynx mail make man md5sum
    mkdir mkfs more mount mv mypy nano nc ncdu netstat nice nmap node nohup npm npx openssl passwd pgrep
    ping pip pip3 pkill podman poetry printenv printf ps pwd pytest python python3 read readlink
    realpath reboot rg rlp rm rmdir rsync ruff rustc scp screen sed seq service set sftp sh sha256sum
    shutdown sleep sort source split ssh stat strace su sudo systemctl tail tar tee test time timeout
    tmux top touch tr tree type ulimit umask umount uname uniq unset unzip uptime uv vi vim watch wc
    wget whereis which who whoami write xargs xz yes zip zsh
"""
COMMANDS = frozenset(_COMMANDS_WORDS.split())
"""What counts as a command when the caller does not know the machine's own."""

_STOP_WORDS = """
    a about all am an and any are as at be because but by can could did do does for from had has have
    her him his how i if in into is it its just latest me mine my need next of on or our please she
    should some somebody someone tell that the their them then there these they this those to us want
    was we were what when where which whom whose why will with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())
_QUESTIONS_WORDS = """
    who what when where why how which whose whom is are do does can could should
"""
_QUESTIONS = frozenset(_QUESTIONS_WORDS.split())
_FLAG = re.compile(r"--?[A-Za-z][\w-]*(=.*)?\Z")
_PATH = re.compile(
    r"(?:\.{1,2}/|~/|/)\S*|\S+/\S*|[\w.-]+\.[a-z0-9]{1,5}\Z|\.{1,2}\Z|[^\s?]*\*[^\s?]*|\$\w+\Z"
)
_NUMBER = re.compile(r"[\d.,]+\Z")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=\S*\Z")


def route(prompt: str, openings: Iterable[Routable] = (), *, commands: Collection[str] = COMMANDS) -> Route:
    """Decide where a prompt goes. Total and pure: equal arguments, equal route."""
    text = prompt.strip()
    if not text:
        return Route(kind="agent", rule="empty", reason="there is nothing in it")
    if len(text) > MAX_PROMPT:
        features = {"characters": len(text)}
        return Route(kind="agent", rule="long", features=features, reason="it is a text, not a line")
    asked = text[1:].strip() if text[0] in "!?" else text
    why = denied(asked)
    if why is not None:
        return Route(kind="denied", target=_command(asked), rule="deny", reason=why)
    if text[0] == "!":
        reason = "the prompt begins with '!'"
        return Route(kind="shell", target=_command(asked), rule="explicit_shell", reason=reason)
    if text[0] == "?":
        return Route(kind="agent", rule="explicit_agent", reason="the prompt begins with '?'")
    return _opening(text, list(openings)) or _plain(text, commands)


def _command(line: str) -> str | None:
    for command in parse(line):
        words = [word for word in command.argv if not _ASSIGNMENT.match(word)]
        if words:
            return words[0]
    return None


# --- shell or agent -------------------------------------------------------------------------------


def _plain(text: str, commands: Collection[str]) -> Route:
    """The first of the rules that fits; the last one always does."""
    seen = _features(text, commands)
    prose, first, asks = seen["prose"], seen["first"], seen["question"]
    syntax = [name for name in ("flags", "operators") if seen[name]]
    rules: tuple[tuple[Any, Literal["shell", "agent"], str, str], ...] = (
        (seen["path_first"] and not asks, "shell", "path", "it begins with the path of a program"),
        (seen["assignment"] and not prose, "shell", "assignment", "it begins with an assignment"),
        (seen["command"] and syntax, "shell", "command_syntax", f"a command with {' and '.join(syntax)}"),
        (
            seen["command"] and prose and (seen["words"] > 2 or asks),
            "agent",
            "prose",
            f"it begins with the name of a command but reads like a sentence ({prose} such words)",
        ),
        (seen["command"], "shell", "command", f"'{first}' is a command"),
        (
            seen["operators"] and seen["later_command"] and not prose,
            "shell",
            "pipeline",
            "it joins commands",
        ),
        (asks, "agent", "question", "it is a question"),
        (True, "agent", "prose", f"'{first}' is no command"),
    )
    kind, rule, reason = next(rest for fits, *rest in rules if fits)
    return _route(kind, text, rule, seen, reason)  # type: ignore[arg-type]


def _route(kind: Literal["shell", "agent"], text: str, rule: str, seen: dict[str, Any], why: str) -> Route:
    target = _command(text) if kind == "shell" else None
    return Route(kind=kind, target=target, rule=rule, features=seen, reason=why)


def _features(text: str, commands: Collection[str]) -> dict[str, Any]:
    parsed = parse(text)
    argv = next((command.argv for command in parsed if command.argv), [])
    first = next((word for word in argv if not _ASSIGNMENT.match(word)), "")
    words = text.split()[:_MAX_WORDS]
    plain = [word.strip(".,;:!?\"'()").casefold() for word in words]
    return {
        "first": first[:40],
        "command": first in commands,
        "later_command": any(command.argv and command.argv[0] in commands for command in parsed[1:]),
        "words": len(words),
        "flags": sum(1 for word in words[1:] if _FLAG.match(word)),
        "operators": sum(word in {"|", "||", "&&", ">", ">>", "<", "2>&1", "&"} for word in words)
        + sum(word.endswith(";") for word in words[:-1])
        + (len(parsed) > 1 and any(command.piped for command in parsed)),
        "paths": sum(1 for word in words if _PATH.match(word) and not _NUMBER.match(word)),
        "path_first": bool(re.match(r"(?:\./|\.\./|~/|/)\w", first)),
        "assignment": bool(words and _ASSIGNMENT.match(words[0])),
        "prose": sum(word in _STOP for word in plain[1:]),
        "question": text.endswith("?") or (plain[0] in _QUESTIONS and first not in commands),
    }


# --- openings -------------------------------------------------------------------------------------

_SYNONYMS = (
    frozenset(["write", "compose", "draft", "send", "prepare"]),
    frozenset(["email", "e-mail", "mail", "message", "letter"]),
    frozenset(["about", "regarding", "re", "concerning", "on"]),
    frozenset(["tell", "inform", "notify"]),
    frozenset(["by", "via", "per"]),
    frozenset(["summarize", "summarise", "sum"]),
    frozenset(["find", "search", "look"]),
)
_GROUP = {word: number for number, group in enumerate(_SYNONYMS) for word in group}
_ARTICLES = frozenset(["a", "an", "the", "my"])
_POLITE = (
    "please could you please",
    "could you please",
    "can you please",
    "i would like to",
    "i'd like to",
    "i want to",
    "i need to",
    "help me to",
    "could you",
    "would you",
    "can you",
    "help me",
    "please",
    "let's",
    "hey",
    "now",
)
_THANKS = frozenset({"please", "thanks", "thank", "you"})
_MAX_FILLERS = 2
"""Words that may stand between two words of a goal: "write a *short friendly* mail"."""
_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}\Z")


@dataclass(frozen=True, slots=True)
class _Match:
    opening: str
    goal: str
    params: dict[str, str]
    fillers: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """More parameters first, then more words of the goal, then fewer words passed over."""
        return len(self.params), len(self.goal.split()), -self.fillers


def _opening(text: str, openings: list[Routable]) -> Route | None:
    words = _courteous(text.split()[:_MAX_WORDS])
    bare = [_bare(word) for word in words]
    for opening in openings:
        if bare in ([opening.name], ["run", opening.name]):
            reason = f"it is the name of the opening {opening.name}"
            return Route(kind="opening", target=opening.name, rule="name", reason=reason)
    best: _Match | None = None
    for opening in openings:
        for goal in opening.goals:
            found = _listen(opening, goal, words, bare)
            if found is not None and (best is None or found.rank > best.rank):
                best = found
    if best is None:
        return None
    return Route(
        kind="opening",
        target=best.opening,
        params=best.params,
        rule="goal",
        features={"goal": best.goal, "slots": len(best.params), "passed_over": best.fillers},
        reason=f"it asks what {best.opening} is for: {best.goal}",
    )


def _courteous(words: list[str]) -> list[str]:
    """The words without courtesies at either end."""
    changed = True
    while changed and words:
        changed = False
        for phrase in _POLITE:
            length = len(phrase.split())
            if " ".join(_bare(word) for word in words[:length]) == phrase and len(words) > length:
                words, changed = words[length:], True
    while len(words) > 1 and _bare(words[-1]) in _THANKS:
        words = words[:-1]
    return words


def _listen(opening: Routable, goal: str, words: list[str], bare: list[str]) -> _Match | None:
    """Hear a goal in a prompt: walk both once, from left to right."""
    wanted = [word for word in goal.split() if word.casefold() not in _ARTICLES]
    params: dict[str, str] = {}
    fillers = at = 0
    index = 0
    while index < len(wanted):
        slot = _SLOT.match(wanted[index])
        if slot is None:
            passed = _reach(wanted[index], bare, at, _MAX_FILLERS if index else 0)
            if passed is None:
                return None
            fillers += passed[1]
            at = passed[0] + 1
            index += 1
            continue
        end = len(words) if index + 1 == len(wanted) else _find(wanted[index + 1], bare, at + 1)
        value = "" if end is None else _value(words[at:end])
        if end is None or not value or slot.group(1) not in opening.params:
            return None
        params[slot.group(1)] = value
        at = end
        index += 1
    if at < len(words):
        return None
    return _Match(opening.name, goal, params, fillers)


def _reach(wanted: str, words: list[str], at: int, allowance: int) -> tuple[int, int] | None:
    """Where the next word of the goal stands, and how many words were passed over (articles are free)."""
    passed = 0
    for position in range(at, len(words)):
        if _same(wanted, words[position]):
            return position, passed
        if words[position] not in _ARTICLES:
            passed += 1
            if passed > allowance:
                return None
    return None


def _find(wanted: str, words: list[str], start: int) -> int | None:
    """Where a slot ends: at the very word of the goal, or else at a synonym of it."""
    exact = (at for at in range(start, len(words)) if words[at] == wanted.casefold())
    close = (at for at in range(start, len(words)) if _same(wanted, words[at]))
    return next(exact, next(close, None))


def _same(wanted: str, word: str) -> bool:
    wanted = wanted.casefold()
    return wanted == word or (word in _GROUP and _GROUP[word] == _GROUP.get(wanted))


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()“”„‘’").casefold().replace("’", "'")


def _value(words: list[str]) -> str:
    """What a slot holds: no leading article, no quotes around it, no full stop behind it."""
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words).strip().rstrip(".!?,;:").strip("\"'“”„‘’").strip()
