"""How far a loop may go, and how far it has gone.

Knows: each limit and the moment it is reached; they hold independently of one another. Does not know: who
spends. The host's own budgets and quotas stand behind these and cannot be moved from in here.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "Spent"]


@dataclass(frozen=True)
class Limits:
    """Of one loop. Whatever is reached first ends it."""

    hops: int = 16
    """Turns of the model. The last one is for the answer: no tool is offered in it."""
    calls: int = 40
    """Tool calls that are carried out."""
    repeats: int = 2
    """How often the same call, with the same arguments, is carried out."""
    mistakes: int = 6
    """Calls in a row that cannot be carried out: no such tool, wrong arguments, asked before."""
    tokens: int | None = 200_000
    """Input and output of every turn together."""
    micro_usd: int | None = None
    """Millionths of a US dollar."""
    deadline_ms: int | None = None
    """Unix time in milliseconds at which no further turn and no further call begins; put off by as long as a
    tool waited for a person."""
    context_chars: int = 60_000
    """What a turn is given, apart from the system prompt and the user's words, which are never dropped."""
    result_chars: int = 6_000
    """Longest result that stands in the conversation; what is longer becomes an artifact."""
    answer_tokens: int = 2_048
    """Longest turn of the model."""

    def __post_init__(self) -> None:
        for name in ("hops", "calls", "repeats", "mistakes", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.result_chars < 200 or self.context_chars < 2 * self.result_chars:
            raise ValueError("result_chars is at least 200, and context_chars at least twice as much")


@dataclass
class Spent:
    """What a loop has used up."""

    hops: int = 0
    calls: int = 0
    mistakes: int = 0
    """In all."""
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0

    def to_json(self) -> dict[str, int]:
        """All of it."""
        return dict(vars(self))

    def over(self, limits: Limits, now_ms: int | None) -> str:
        """Which limit forbids another turn: ``hops``, ``tokens``, ``money``, ``time``; empty when none."""
        if self.hops >= limits.hops:
            return "hops"
        if limits.tokens is not None and self.input_tokens + self.output_tokens >= limits.tokens:
            return "tokens"
        if limits.micro_usd is not None and self.micro_usd >= limits.micro_usd:
            return "money"
        return self.late(limits, now_ms)

    def late(self, limits: Limits, now_ms: int | None) -> str:
        """``time`` once the deadline has come."""
        over = limits.deadline_ms is not None and now_ms is not None and now_ms >= limits.deadline_ms
        return "time" if over else ""
