"""Where a prompt goes: a shell line, a wish for an agent, an opening with its parameters, or nowhere.

Knows: rules, tried in a fixed order, each of which says its name, what it saw and why it decided; and, for
lines that begin with a command's name, a weighing of what was seen (``weights``, learnt from a labelled
corpus). Does not know: models, files or the machine; openings and command names are handed in. Pure, linear,
well under 5 ms, and free of third-party imports, for it stands in front of every prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from openings.deny import denied
from openings.goals import Choice, Other, Routable, choose, named
from openings.lexicon import COMMANDS, FIXED
from openings.shell import parse
from openings.traits import Seen, look
from openings.weights import BIAS, WEIGHTS

__all__ = ["COMMANDS", "MAX_JUDGED", "MAX_PROMPT", "Other", "Routable", "Route", "route"]

MAX_PROMPT = 2_048
"""Characters of a line; what is longer is a text, and for an agent unless it begins as a shell line does."""
MAX_JUDGED = 16_384
"""Characters that are looked through for what must not be run; what is longer is no shell line."""
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""What a terminal obeys or hides."""

_BLOCK = re.compile(
    r"(?:for|while|until|if|case|select|function|begin|switch)\b.*[\n;]\s*"
    r"(?:do|then|done|fi|esac|end|\})(?:\s|;|\Z)",
    re.DOTALL,
)
"""A block of a shell, over several lines or in one."""
_NO_WORD = re.compile(r"[a-z][-_0-9.][a-z0-9]?")
"""What no word of a sentence looks like: ``apt-get``, ``my_alias``, ``python3``."""
_TOLD = {
    "prose": "the small words of a sentence",
    "prose_share": "mostly small words",
    "small_next": "a small word behind it",
    "plain": "plain words",
    "verb_next": "a verb behind it",
    "sentence": "the marks of a sentence",
    "asks": "a question mark",
    "everyday": "an everyday word",
    "apostrophes": "an apostrophe",
}
"""What speaks for a sentence, in words."""
Kind = Literal["shell", "agent", "opening", "denied"]


class Route(NamedTuple):
    """A decision, explained."""

    kind: Kind
    rule: str
    """Stable name of the rule that decided."""
    reason: str
    """One sentence for people."""
    target: str | None = None
    """Name of the opening; the command of a shell line."""
    params: Mapping[str, str] = {}
    """Parameters of the opening, as text."""
    features: Mapping[str, Any] = {}
    """What was seen, and how much it weighed."""
    others: tuple[Other, ...] = ()
    """Openings that were not taken, the nearest first, each with the reason."""

    def to_json(self) -> dict[str, Any]:
        """The route as one JSON object."""
        return {
            "kind": self.kind,
            "target": self.target,
            "params": dict(self.params),
            "rule": self.rule,
            "features": dict(self.features),
            "reason": self.reason,
            "others": [other._asdict() for other in self.others],
        }


def route(  # noqa: PLR0911 - a list of rules, the first that fits
    prompt: str, openings: Iterable[Routable] = (), *, commands: Container[str] = COMMANDS
) -> Route:
    """Decide where a prompt goes. Total and pure: equal arguments, equal route."""
    text = prompt.strip()
    if not text:
        return Route("agent", "empty", "there is nothing in it")
    asked = text[1:].strip() if text[0] in "!?" else text
    why = denied(asked[:MAX_JUDGED])
    if why is not None:
        return Route("denied", "deny", why, _command(asked))
    if text[0] == "?":
        return Route("agent", "explicit_agent", "the prompt begins with '?'")
    if _CONTROL.search(text):
        return Route(
            "agent", "control", "it holds characters that a terminal obeys or hides; no shell is given it"
        )
    if len(text) > MAX_JUDGED:
        return Route(
            "agent", "long", "it is longer than is looked through", features={"characters": len(text)}
        )
    if text[0] == "!":
        return Route("shell", "explicit_shell", "the prompt begins with '!'", _command(asked))
    if len(text) > MAX_PROMPT:
        return _long(text, commands)
    return _line(text, list(openings), commands)


def _command(line: str) -> str | None:
    for command in parse(line[:MAX_JUDGED]):
        words = [word for word in command.argv if not re.match(r"[A-Za-z_]\w*=", word)]
        if words:
            return words[0]
    return None


def _long(text: str, commands: Container[str]) -> Route:
    """A long line is the shell's when its beginning clearly is: one with much pasted into it."""
    begins = _plain(text[:MAX_PROMPT], commands)
    features = {"characters": len(text)}
    if begins.kind == "shell" and begins.rule != "word":
        return begins._replace(reason=f"{begins.reason}; it is long", features=features)
    return Route("agent", "long", "it is a text, not a line", features=features)


def _line(text: str, openings: list[Routable], commands: Container[str]) -> Route:
    plain = _plain(text, commands)
    called = named(text, openings)
    if called is not None and (called.name not in commands or text.split(maxsplit=1)[0] != called.name):
        return Route("opening", "name", f"it is the name of the opening {called.name}", called.name)
    if plain.kind == "shell" or not openings:  # whoever wrote an opening, it never takes a shell line
        return plain
    choice = choose(text, openings)
    if choice.name is not None:
        return _opening(choice)
    if choice.rule == "tie":
        features = {**plain.features, **choice.features}
        return plain._replace(rule="tie", reason=choice.reason, features=features, others=choice.others)
    return plain._replace(others=choice.others)


def _opening(choice: Choice) -> Route:
    return Route(
        "opening", choice.rule, choice.reason, choice.name, choice.params, choice.features, choice.others
    )


# --- shell or agent -------------------------------------------------------------------------------


def _plain(text: str, commands: Container[str]) -> Route:
    """The first of the rules that fits; the last one always does."""
    parsed = parse(text)
    seen = look(text, parsed, commands)
    numbers = dict(seen.numbers)
    for kind, rule, reason in _rules(seen, numbers):
        if kind is not None:
            shown = {"first": seen.first[:40], "command": seen.command, **numbers}
            return Route(kind, rule, reason, _command(text) if kind == "shell" else None, {}, shown)
    raise AssertionError("the last rule always fits")


def _rules(seen: Seen, numbers: dict[str, float]) -> Iterable[tuple[Kind | None, str, str]]:
    prose = numbers.get("prose", 0)
    if seen.path and not seen.asks:
        yield "shell", "path", "it begins with the path of a program"
    if seen.set_first and not prose:
        yield "shell", "assignment", "it begins with an assignment"
    if seen.line in FIXED:
        yield "shell", "command", "it is a command that only reads like a sentence"
    if seen.command and _BLOCK.match(seen.line):
        yield "shell", "block", f"'{seen.first[:40]}' begins a block of several lines"
    if seen.command and _NO_WORD.search(seen.first) and not (seen.asks or numbers.get("verb_next")):
        yield "shell", "command", f"'{seen.first[:40]}' is a command, and no word of any sentence"
    if seen.command:
        yield _weighed(seen, numbers)
    if numbers.get("operators") and seen.later and not prose and not seen.asks:
        yield "shell", "pipeline", "it joins commands"
    if seen.asks:
        yield "agent", "question", "it is a question"
    if seen.single:
        yield "shell", "word", "it is one word: a program's name, or a slip that the shell will report"
    if numbers.get("flags") and not prose and numbers.get("plain", 0) < 3 and seen.first.isascii():
        yield "shell", "flags", f"'{seen.first[:40]}' is given options as a program is"
    yield "agent", "prose", f"'{seen.first[:40]}' is no command"


def _weighed(seen: Seen, numbers: dict[str, float]) -> tuple[Kind, str, str]:
    """Weigh what was seen in a line that begins with the name of a command."""
    parts = {name: WEIGHTS[name] * value for name, value in numbers.items() if name in WEIGHTS}
    total = BIAS + sum(parts.values())
    numbers["for_shell"] = round(1 / (1 + math.exp(-max(-30.0, min(30.0, total)))), 3)
    if total > 0:
        syntax = " and ".join(seen.syntax)
        if syntax:
            return "shell", "command_syntax", f"a command with {syntax}"
        return "shell", "command", f"'{seen.first[:40]}' is a command"
    against = sorted((weight, name) for name, weight in parts.items() if weight < 0)[:2]
    told = ", ".join(_TOLD.get(name, name.replace("_", " ")) for _, name in against) or "what follows"
    return "agent", "prose", f"it begins with the name of a command but reads like a sentence ({told})"
