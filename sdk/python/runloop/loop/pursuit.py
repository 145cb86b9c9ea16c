"""The loop: ask the model, make the calls it asks for, show it what came, until it answers or a limit holds.

Knows: the order of a turn, what is wrong with a call, when to stop and how to say so. Does not know: what
tools do, how messages are kept short (``conversation``), who may do what (the gate).

A limit ends a loop in one of two ways. Where a turn is left, the model is told to answer with what it has,
and is offered no tools; what it says then is ``text``, and ``pressed`` names the limit. Where none is left,
the loop ends at once, and ``why`` names the limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runloop.agent import Fail
from runloop.host import Host, HostRefused
from runloop.loop.conversation import Asked, Conversation, Observation, Turn, compact
from runloop.loop.kept import Kept
from runloop.loop.limits import Limits, Spent
from runloop.loop.toolbox import Seen, Tool, Toolbox
from runloop.loop.trust import lowest

__all__ = ["Ended", "pursue"]

MAX_CALLS_A_TURN = 32
MAX_ARGUMENTS = 16_384
"""Characters of the arguments of one call."""
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_FATAL = ("quota.exceeded", "gate.stopped", "gate.no_run", "token.")
"""Refusals after which nothing more is answered: the attempt is over, whatever the model would say."""
_BUDGET = ("budget.exceeded",)
_NO_MODEL = ("model.none", "cap.denied", "op.denied")
_EMPTY = "[Runloop] That was empty. Call a tool, or answer the user in words."
_ANSWER = "Answer the user now, with what you have, and say what is missing."
_CLOSE = {
    "hops": "This is the last turn",
    "calls": "No tool calls are left",
    "repeats": "The same call was asked for again and again",
    "mistakes": "Too many calls could not be carried out",
}


@dataclass(frozen=True)
class Ended:
    """How a loop ended."""

    text: str
    """The model's last words; empty where it had none."""
    why: str
    """``answered``, or what ended it: ``hops``, ``calls``, ``repeats``, ``mistakes``, ``tokens``, ``money``,
    ``budget``, ``time``, ``empty``, ``filter``, ``no_model``, ``model``."""
    pressed: str = ""
    """The limit because of which the model was told to answer; empty when it came to an end by itself."""
    spent: Spent = field(default_factory=Spent)
    label: str = "user"
    """Lowest trust label of everything it was shown."""
    cut: bool = False
    """The last words were cut at ``answer_tokens``."""
    refused: tuple[str, ...] = ()
    """Tools whose effect a person or the policy refused: ``name: code``."""
    error: str = ""
    """Of ``model``, ``no_model`` and ``budget``: code and words of the refusal."""
    used: tuple[str, ...] = ()
    """Names of the tools that were called with success, in order, each once."""

    @property
    def ok(self) -> bool:
        """Whether the model answered of its own accord."""
        return self.why == "answered" and not self.pressed

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        found = {name: value for name, value in vars(self).items() if name != "spent"}
        return {
            **found,
            "refused": list(self.refused),
            "used": list(self.used),
            "spent": self.spent.to_json(),
        }


def pursue(
    host: Host,
    wish: str,
    tools: Iterable[Tool],
    *,
    system: str = "",
    limits: Limits | None = None,
    earlier: Sequence[tuple[str, str]] = (),
    model: str | None = None,
    scrub: Callable[[Any], Any] | None = None,
    label: str = "user",
) -> Ended:
    """Pursue a wish with tools, within limits.

    ``scrub`` is applied to whatever a tool gave before anybody sees it; ``label`` is that of ``earlier``.
    Raises ``HostRefused`` only where the whole attempt is over (a quota), ``Fail`` never.
    """
    return _Pursuit(host, wish, tools, system, limits or Limits(), earlier, model, scrub, label).to_the_end()


class _Pursuit:
    """One loop under way."""

    def __init__(
        self,
        host: Host,
        wish: str,
        tools: Iterable[Tool],
        system: str,
        limits: Limits,
        earlier: Sequence[tuple[str, str]],
        model: str | None,
        scrub: Callable[[Any], Any] | None,
        label: str,
    ) -> None:
        self._host = host
        self._limits = limits
        self._kept = Kept(host, limits.result_chars)
        self._box = Toolbox.of([*tools, self._kept.tool()])
        self._talk = Conversation(system, wish, earlier=earlier, limit_chars=limits.context_chars)
        self._model = model
        self._scrub = scrub or (lambda value: value)
        self._spent = Spent()
        self._label = lowest(label)
        self._made: dict[str, int] = {}
        """A call and its arguments -> how often it was carried out."""
        self._empty = 0
        """Turns without a word and without a call."""
        self._again = 0
        """Calls that were not carried out because they had been."""
        self._in_a_row = 0
        """Calls that could not be carried out since the last one that could."""
        self._waited_ms = 0
        self._pressed = ""
        self._refused: list[str] = []
        self._used: dict[str, None] = {}
        self._text = ""
        self._cut = False

    def to_the_end(self) -> Ended:
        lost = 0
        while True:
            if why := self._spent.over(self._limits, self._now()):
                return self._ended(why)
            if self._spent.hops + 1 == self._limits.hops:
                self._pressed = self._pressed or "hops"
            try:
                answer = self._turn()
            except HostRefused as error:
                if error.retryable and not lost:
                    lost += 1  # cut off in the middle of a turn: once more, and it counts as a turn
                    continue
                return self._without_model(error)
            if why := self._take(answer):
                return self._ended(why)

    def _take(self, answer: Mapping[str, Any]) -> str:
        """Do what a turn of the model asks for; returns why the loop is over, or nothing."""
        text, asked = str(answer.get("text") or "").strip(), _asked(answer.get("tool_calls"))
        self._text, self._cut = text or self._text, answer.get("finish") == "length"
        if asked:
            # Told to answer, it went on asking.
            return self._pressed or self._act(text, asked)
        if text:
            return "answered"
        if answer.get("finish") == "filter":
            return "filter"
        self._empty += 1
        if self._empty > 1 or self._pressed:
            return "empty"
        self._talk.add(Turn(text="", said=_EMPTY))
        return ""

    # --- a turn -----------------------------------------------------------------------------------

    def _turn(self) -> Mapping[str, Any]:
        self._spent.hops += 1
        closing = f"[Runloop] {_CLOSE[self._pressed]}. {_ANSWER}" if self._pressed else ""
        offered = self._box.offered()
        answer: Mapping[str, Any] = self._host.call(
            "model.complete",
            {
                "messages": self._talk.messages(closing),
                "model": self._model,
                "max_tokens": self._limits.answer_tokens,
                "tools": offered,
                "tool_choice": "none" if self._pressed or not offered else "auto",
            },
        )
        self._spent.input_tokens += int(answer.get("input_tokens") or 0)
        self._spent.output_tokens += int(answer.get("output_tokens") or 0)
        self._spent.micro_usd += int(answer.get("cost_micro_usd") or 0)
        return answer

    def _without_model(self, error: HostRefused) -> Ended:
        if error.code.startswith(_FATAL):
            raise error
        why = "budget" if error.code in _BUDGET else "no_model" if error.code in _NO_MODEL else "model"
        return self._ended(why, error=f"{error.code}: {error}")

    def _ended(self, why: str, *, error: str = "") -> Ended:
        return Ended(
            text=self._text,
            why=why,
            pressed=self._pressed if why == "answered" else "",
            spent=self._spent,
            label=self._label,
            cut=self._cut,
            refused=tuple(self._refused),
            error=error,
            used=tuple(self._used),
        )

    # --- calls ------------------------------------------------------------------------------------

    def _act(self, text: str, asked: list[tuple[Asked, str]]) -> str:
        """Make the calls of a turn; returns the limit that ends the loop, or nothing."""
        turn = Turn(text=text, calls=[call for call, _ in asked])
        why = ""
        for call, malformed in asked:
            why = why or self._spent.late(self._limits, self._now())
            turn.seen.append(
                self._not_done(call, "time", "time is up") if why else self._call(call, malformed)
            )
        before = self._talk.shortened
        self._talk.add(turn)
        if self._talk.shortened > before:
            self._made.clear()  # what an earlier call gave no longer stands there to be read
        if not why and self._in_a_row >= self._limits.mistakes:
            self._pressed = self._pressed or "mistakes"
        return why

    def _call(self, call: Asked, malformed: str) -> Observation:
        tool = self._box.find(call.name)
        if tool is None:
            return self._mistake(call, "tool.unknown", self._box.unknown(call.name))
        if malformed:
            said = f"The arguments cannot be taken: {malformed[:200]}"
            return self._mistake(call, "tool.args", said)
        if wrong := self._box.misfit(tool, call.arguments):
            return self._mistake(call, "tool.args", f"{wrong}.")
        same = f"{tool.name} {compact(call.arguments)}"
        if self._made.get(same, 0) >= self._limits.repeats:
            self._again += 1
            if self._again >= self._limits.repeats:
                self._pressed = self._pressed or "repeats"
            said = "You asked exactly this before; what it gave stands above. Do something else, or answer."
            return self._mistake(call, "loop.repeated", said)
        if self._spent.calls >= self._limits.calls:
            self._pressed = self._pressed or "calls"
            return self._not_done(call, "loop.calls", "No tool calls are left. Answer with what you have.")
        self._made[same] = self._made.get(same, 0) + 1
        self._spent.calls += 1
        return self._carried_out(tool, call)

    def _carried_out(self, tool: Tool, call: Asked) -> Observation:
        self._host.progress(f"{tool.name} {compact(self._scrub(call.arguments))[:200]}")
        self._in_a_row = 0
        began = self._now() if tool.waits else None
        try:
            given = tool.run(dict(call.arguments))
        except HostRefused as error:
            if error.code.startswith(_FATAL):
                raise
            return self._said_no(tool, call, error.code, error.message, error.hint, error.retryable)
        except Fail as error:
            return self._said_no(tool, call, error.code, error.message, None, error.retryable)
        finally:
            if began is not None:
                self._waited_ms += (self._now() or began) - began
        seen = given if isinstance(given, Seen) else Seen(given, tool.label)
        self._label = lowest(self._label, seen.label)
        self._used[tool.name] = None
        text, short = self._kept.told(tool.name, Seen(self._scrub(seen.value), seen.label))
        return Observation(call.id, text, short)

    def _said_no(
        self, tool: Tool, call: Asked, code: str, message: str, hint: str | None, retryable: bool
    ) -> Observation:
        """A refusal is an observation; its words may be a stranger's, so they are labelled as the tool's."""
        if code.startswith(("approval.", "cap.", "policy.", "operator.")):
            self._refused.append(f"{tool.name}: {code}")
        error = {"code": code, "message": message[:600], "retryable": retryable}
        if hint:
            error["hint"] = hint[:300]
        label = tool.label if tool.foreign or tool.label != "host" else "host"
        self._label = lowest(self._label, label)
        told = {"tool": tool.name, "trust": label, "error": self._scrub(error)}
        return Observation(call.id, compact(told), compact({"tool": tool.name, "error": {"code": code}}))

    def _mistake(self, call: Asked, code: str, said: str) -> Observation:
        self._spent.mistakes += 1
        self._in_a_row += 1
        return self._not_done(call, code, said)

    def _not_done(self, call: Asked, code: str, said: str) -> Observation:
        told = {"tool": call.name[:64], "error": {"code": code, "message": said}}
        short = {"tool": call.name[:64], "error": {"code": code}}
        return Observation(call.id, compact(told), compact(short))

    def _now(self) -> int | None:
        """The clock without the time people took; None where no limit needs it."""
        return None if self._limits.deadline_ms is None else self._host.now_ms() - self._waited_ms


def _asked(calls: Any) -> list[tuple[Asked, str]]:
    """The calls of an answer, each with what is malformed about it. Ids are unique within the turn."""
    found: list[tuple[Asked, str]] = []
    ids: set[str] = set()
    for number, one in enumerate(calls[:MAX_CALLS_A_TURN] if isinstance(calls, list) else ()):
        if not isinstance(one, Mapping):
            continue
        given = one.get("arguments")
        malformed = f"no JSON object: {one['malformed']}" if "malformed" in one else ""
        if not malformed and not isinstance(given, dict):
            malformed = f"no JSON object: {json.dumps(given, default=str)}"
        if not malformed and (size := len(compact(given))) > MAX_ARGUMENTS:
            malformed = f"they have {size} characters, more than {MAX_ARGUMENTS}"
        name = str(one.get("id") or "")
        if not name or name in ids:
            name = f"call_{number}_{len(ids)}"
        ids.add(name)
        called = _UNFIT.sub("_", str(one.get("name") or ""))[:64] or "_"
        found.append((Asked(name, called, {} if malformed else dict(given or {})), malformed))
    return found
