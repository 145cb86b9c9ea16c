"""Which opening a wish means: by its name, by a goal it fits, or by the words it shares with one.

The goals of an opening are what it listens for: ``write an email to {recipient} about {topic}``. A word of a
goal stands for its synonyms, articles do not matter, a ``{slot}`` takes all up to the next word of the goal.
Where no goal fits, openings are compared by the words they share with the wish, rare words counting more;
one must be clearly ahead, and no slot is guessed. Does not know: shell lines, or whether a run is possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from openings.lexicon import ACTIONS, ARTICLES, GROUP, POLITE, SMALL, THANKS, VERBS_AFTER, stem

__all__ = ["Choice", "Other", "Routable", "choose", "named"]

_MAX_WORDS = 200
_MAX_FILLERS = 2
"""Words that may stand between two words of a goal: "write a *short friendly* mail"."""
_TURNS = VERBS_AFTER | {"not", "no", "never", "without", "don't", "nobody"}
"""Words that are never passed over: they turn the sense."""
_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}\Z")
_NEAR = 0.72
"""Share of the words, on both sides and weighed, above which an opening is meant. Tuned on the corpus."""
_AHEAD = 0.12
"""By how much it must be ahead of the next."""
_SHOWN = 5
"""Openings that are explained."""


class Routable(Protocol):
    """What the router wants to know of an opening."""

    @property
    def name(self) -> str: ...
    @property
    def goals(self) -> Collection[str]: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


class Other(NamedTuple):
    """An opening that was looked at and not taken."""

    name: str
    goal: str
    """Its goal that comes nearest."""
    score: float
    """0 to 1: how much of the wish and of the goal are the same words."""
    why: str
    """Why not, in words."""


class Choice(NamedTuple):
    """An opening, or none, and the others."""

    name: str | None
    rule: str
    """``goal`` or ``near``."""
    goal: str
    params: dict[str, str]
    features: dict[str, Any]
    reason: str
    others: tuple[Other, ...]


class _Match(NamedTuple):
    opening: str
    goal: str
    params: dict[str, str]
    fillers: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """More parameters first, then more words of the goal, then fewer words passed over."""
        return len(self.params), len(self.goal.split()), -self.fillers


def named(text: str, openings: Sequence[Routable]) -> Routable | None:
    """The opening that is called by its name, alone or behind "run"."""
    bare = [_bare(word) for word in _courteous(text.split()[:_MAX_WORDS])]
    return next((one for one in openings if bare in ([one.name], ["run", one.name])), None)


def choose(text: str, openings: Sequence[Routable]) -> Choice:
    """The opening a wish means, by goals first and by shared words second."""
    words = _courteous(text.split()[:_MAX_WORDS])
    bare = [_bare(word) for word in words]
    matches = [
        found
        for one in openings
        for goal in one.goals
        if (found := _listen(one, goal, words, bare)) is not None
    ]
    near = _compared(bare, openings)
    if not matches:
        return _nearest(near)
    best = max(matches, key=lambda match: match.rank)  # of equals the first: the first folder wins
    rivals = {match.opening: match for match in reversed(matches) if match.opening != best.opening}
    others = [
        Other(name, match.goal, 1.0, _lost_to(match, best)) for name, match in sorted(rivals.items())
    ] + [other for other in near if other.name != best.opening and other.name not in rivals]
    features = {"goal": best.goal, "slots": len(best.params), "passed_over": best.fillers}
    tied = sorted(name for name, match in rivals.items() if match.rank == best.rank)
    reason = f"it asks what {best.opening} is for: {best.goal}"
    if tied:
        reason += f" ({', '.join(tied)} would fit as well; {best.opening} is found first)"
    return Choice(best.opening, "goal", best.goal, best.params, features, reason, tuple(others[:_SHOWN]))


def _lost_to(match: _Match, best: _Match) -> str:
    if len(match.params) != len(best.params):
        return (
            f"it fits too, but hears {len(match.params)} values where {best.opening} hears {len(best.params)}"
        )
    if match.rank[1] != best.rank[1]:
        return f"it fits too, but explains fewer words than {best.opening}"
    if match.rank != best.rank:
        return f"it fits too, but passes over {match.fillers} words"
    return f"it fits as well; {best.opening} is found first"


# --- goals that fit -------------------------------------------------------------------------------


def _courteous(words: list[str]) -> list[str]:
    """The words without courtesies at either end."""
    changed = True
    while changed and words:
        changed = False
        for phrase in POLITE:
            length = len(phrase.split())
            if " ".join(_bare(word) for word in words[:length]) == phrase and len(words) > length:
                words, changed = words[length:], True
    while len(words) > 1 and _bare(words[-1]) in THANKS:
        words = words[:-1]
    return words


def _listen(opening: Routable, goal: str, words: list[str], bare: list[str]) -> _Match | None:
    """Hear a goal in a prompt: walk both once, from left to right."""
    wanted = [word for word in goal.split() if word.casefold() not in ARTICLES]
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
        if end is None or not value or _second_wish(bare[at:end]) or slot.group(1) not in opening.params:
            return None
        params[slot.group(1)] = value
        at = end
        index += 1
    if at < len(words):
        return None
    return _Match(opening.name, goal, params, fillers)


def _second_wish(words: list[str]) -> bool:
    """Whether a slot would swallow a wish of its own: "... the rollout and draft a mail to john"."""
    return any(word in {"and", "then"} and after in ACTIONS for word, after in pairwise(words[:-1]))


def _reach(wanted: str, words: list[str], at: int, allowance: int) -> tuple[int, int] | None:
    """Where the next word of the goal stands, and how many words were passed over (articles are free)."""
    passed = 0
    for position in range(at, len(words)):
        if _same(wanted, words[position]):
            return position, passed
        if words[position] in _TURNS:
            return None
        if words[position] not in ARTICLES:
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
    return wanted == word or (word in GROUP and GROUP[word] == GROUP.get(wanted))


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()“”„‘’").casefold().replace("’", "'")


def _value(words: list[str]) -> str:
    """What a slot holds: no leading article, no quotes around it, no full stop behind it."""
    if len(words) > 1 and words[0] in ARTICLES:
        words = words[1:]
    return " ".join(words).strip().rstrip(".!?,;:").strip("\"'“”„‘’").strip()


# --- goals that nearly fit ------------------------------------------------------------------------


def _key(word: str) -> str:
    """One key for all words that mean the same."""
    return f"={GROUP[word]}" if word in GROUP else stem(word)


def _content(words: Sequence[str]) -> list[str]:
    """The words that carry the meaning, once each, in their order."""
    return list(
        dict.fromkeys(_key(word) for word in words if word and word not in SMALL and not _SLOT.match(word))
    )


def _compared(bare: list[str], openings: Sequence[Routable]) -> list[Other]:
    """Every opening that shares a word with the wish, the nearest first."""
    asked = _content(bare)
    goals = [
        (one, goal, _content([_bare(word) for word in goal.split() if not _SLOT.match(word)]))
        for one in openings
        for goal in (*one.goals, one.name.replace("_", " ").replace("-", " "))
    ]
    if not asked or not goals:
        return []
    spread: dict[str, set[str]] = {}
    for one, _, words in goals:
        for word in words:
            spread.setdefault(word, set()).add(one.name)
    count = len(openings)
    weight = {
        word: math.log(1 + (count - len(names) + 0.5) / (len(names) + 0.5)) + 0.5
        for word, names in spread.items()
    }
    unheard = max(weight.values(), default=1.0)  # a word that no opening knows counts as a rare one
    wish = sum(weight.get(word, unheard) for word in asked)
    best: dict[str, Other] = {}
    for one, goal, words in goals:
        shared = sum(weight[word] for word in words if word in asked)
        if not shared:
            continue
        score = round(2 * shared / (wish + sum(weight[word] for word in words)), 3)
        if one.name not in best or score > best[one.name].score:
            best[one.name] = Other(one.name, goal, score, _why_not(one, goal, words, asked, bare, score))
    return sorted(best.values(), key=lambda other: (-other.score, other.name))


def _why_not(
    one: Routable, goal: str, words: list[str], asked: list[str], bare: list[str], score: float
) -> str:
    slots = [found.group(1) for word in goal.split() if (found := _SLOT.match(word))]
    if slots:
        return f"it would have to guess {', '.join(slots)}"
    turned = sorted((_TURNS & {*bare}) - {*goal.casefold().split()})
    if turned:
        return f"'{turned[0]}' may turn the sense"
    if score < _NEAR:
        missing = sum(word not in asked for word in words)
        extra = sum(word not in words for word in asked)
        return f"{missing} words of its goal are missing, {extra} of the wish are not in it"
    return ""


def _nearest(near: list[Other]) -> Choice:
    fitting = [other for other in near if other.score >= _NEAR and not other.why]
    if not fitting:
        return Choice(None, "near", "", {}, {}, "", tuple(near[:_SHOWN]))
    best = fitting[0]
    close = [other.name for other in fitting[1:] if best.score - other.score < _AHEAD]
    if close:
        told = tuple(other._replace(why=other.why or "it is as near as another") for other in near[:_SHOWN])
        features = {"as_near": ", ".join([best.name, *close])}
        return Choice(None, "tie", "", {}, features, f"{best.name} and {', '.join(close)} are as near", told)
    others = tuple(
        other._replace(why=other.why or f"{best.name} is nearer")
        for other in near[: _SHOWN + 1]
        if other is not best
    )
    reason = f"its words are those of {best.name}: {best.goal}"
    return Choice(
        best.name, "near", best.goal, {}, {"goal": best.goal, "nearness": best.score}, reason, others
    )
