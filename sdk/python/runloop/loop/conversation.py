"""What the model is told: the wish, what was done, what was seen; kept within a bound.

Knows: the order of messages providers insist on (each call is answered right behind it), what may be
shortened and what never is. Does not know: models or tools. Deterministic: the same turns, the same
messages.

The system prompt and what the user said are always there, whole. Of the rest the oldest is shortened first:
what a tool gave becomes one line, then a whole turn becomes one line of a summary in the model's own voice,
without a word of anybody else's. What strangers wrote stands only in tool messages, as a JSON string beside
its label: it cannot end the string, so it cannot speak as anybody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Asked", "Conversation", "Observation", "Turn", "brief", "compact"]

_LOG = "What I have done so far, in short:"


def compact(value: Any) -> str:
    """JSON on one line, keys sorted."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)


def brief(value: Any) -> str:
    """What a JSON value is, in one line and without its content."""
    if isinstance(value, str):
        return f"text of {len(value)} characters in {value.count(chr(10)) + 1} lines"
    if isinstance(value, Mapping):
        sizes = [
            f"{name} ({len(item)})" if isinstance(item, list) else str(name) for name, item in value.items()
        ]
        return f"object with {', '.join(sizes[:12]) or 'nothing'}"[:200]
    if isinstance(value, Sequence):
        first = value[0] if value else None
        each = f", each with {', '.join(map(str, list(first)[:8]))}" if isinstance(first, Mapping) else ""
        return f"list of {len(value)}{each}"[:200]
    return type(value).__name__ if value is None or isinstance(value, bool) else str(value)[:40]


@dataclass(frozen=True)
class Asked:
    """One call the model asked for."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass
class Observation:
    """What is told of one call."""

    call: str
    """Id of the call it answers."""
    text: str
    short: str
    """The same in one line, without foreign words."""


@dataclass
class Turn:
    """One turn of the model, with what came of it."""

    text: str
    calls: list[Asked] = field(default_factory=list)
    seen: list[Observation] = field(default_factory=list)
    said: str = ""
    """What the loop told the model afterwards, where no call could carry it: words of ours, nobody else's."""
    shortened: bool = False

    def messages(self) -> list[dict[str, Any]]:
        """As ``model.complete`` takes them."""
        found: list[dict[str, Any]] = []
        if self.text or self.calls:
            found.append({"role": "assistant", "content": self.text})
        if self.calls:
            asked = [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in self.calls]
            found[0]["tool_calls"] = asked
        for one in self.seen:
            text = one.short if self.shortened else one.text
            found.append({"role": "tool", "content": text, "tool_call_id": one.call})
        if self.said:
            found.append({"role": "user", "content": self.said})
        return found

    @property
    def size(self) -> int:
        """Characters it takes up."""
        calls = sum(len(call.name) + len(compact(call.arguments)) for call in self.calls)
        seen = sum(len(one.short if self.shortened else one.text) for one in self.seen)
        return len(self.text) + calls + seen + len(self.said)

    def lines(self) -> list[str]:
        """The turn as a summary has it."""
        done = {one.call: one.short for one in self.seen}
        return [
            f"- {c.name} {compact(c.arguments)[:120]} -> {done.get(c.id, 'not done')}"[:400]
            for c in self.calls
        ]


class Conversation:
    """A wish and what was done about it."""

    def __init__(
        self, system: str, wish: str, *, earlier: Sequence[tuple[str, str]] = (), limit_chars: int = 60_000
    ) -> None:
        """``earlier``: wishes and the answers to them, before this one; the wishes are the user's words."""
        self._system = system
        self._wish = wish
        self._earlier = list(earlier)
        self._limit = limit_chars
        self._turns: list[Turn] = []
        self._log: list[str] = []
        self.shortened = 0
        """Turns that were shortened or summarised so far."""

    def add(self, turn: Turn) -> None:
        """The newest turn; older ones are shortened until all fits."""
        self._turns.append(turn)
        self._fit()

    @property
    def size(self) -> int:
        """Characters apart from the system prompt and the user's words."""
        answers = sum(len(answer) for _, answer in self._earlier)
        return answers + sum(turn.size for turn in self._turns) + sum(map(len, self._log))

    def messages(self, closing: str = "") -> list[dict[str, Any]]:
        """Everything a turn is given. ``closing``: what the loop itself has to say at the end."""
        found: list[dict[str, Any]] = []
        if self._system:
            found.append({"role": "system", "content": self._system})
        for wish, answer in self._earlier:
            found.append({"role": "user", "content": wish})
            found.append({"role": "assistant", "content": answer})
        found.append({"role": "user", "content": self._wish})
        told = [message for turn in self._turns for message in turn.messages()]
        if self._log:
            summary = "\n".join([_LOG, *self._log])
            if told and told[0]["role"] == "assistant":  # two in a row are one too many for some models
                told[0]["content"] = f"{summary}\n\n{told[0]['content']}".rstrip()
            else:
                told.insert(0, {"role": "assistant", "content": summary})
        found += told
        if closing:
            found.append({"role": "user", "content": closing})
        return found

    def _fit(self) -> None:
        for turn in self._turns[:-1]:
            if self.size <= self._limit:
                return
            if not turn.shortened:
                turn.shortened = True
                self.shortened += 1
        while self.size > self._limit and len(self._turns) > 1:
            self._log += self._turns.pop(0).lines()
            while sum(map(len, self._log)) > self._limit // 4:
                del self._log[0]
        while self.size > self._limit and self._earlier and any(len(a) > 200 for _, a in self._earlier):
            at = next(n for n, (_, answer) in enumerate(self._earlier) if len(answer) > 200)
            wish, answer = self._earlier[at]
            self._earlier[at] = (wish, f"{answer[:180]} [shortened]")
        if self.size > self._limit:  # the newest turn alone: its longest results give way
            for one in sorted(self._turns[-1].seen, key=lambda seen: -len(seen.text)):
                if self.size <= self._limit:
                    return
                one.text = one.short
