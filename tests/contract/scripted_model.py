"""A model that follows a script: turn by turn, on a real socket, in every dialect, whole or streamed.

``with ScriptedModel([call("kb_search", query="rollout"), say("Here they are.")]) as model`` serves the same
turns at ``/v1/chat/completions`` (OpenAI and its likes), ``/v1/messages`` (Anthropic) and ``/api/chat``
(Ollama). A turn may be a function of what was asked. The last turn is said again and again: a script of one
``call`` is an endless loop.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.contract.fake_model_server import Exchange, FakeModelServer, Seen, as_json, sse, status

Dialect = Literal["openai", "anthropic", "ollama"]
MODEL = "scripted-1"


# --- what was asked, the same in every dialect ----------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One message of a conversation, without its dialect."""

    role: str
    text: str
    calls: tuple[tuple[str, str, Any], ...] = ()
    """``(id, name, arguments)``."""
    answers: str | None = None
    """The id of the call a tool message answers (Ollama: the name of the tool)."""


@dataclass(frozen=True)
class Asked:
    """One request as a turn sees it."""

    dialect: Dialect
    stream: bool
    messages: tuple[Said, ...]
    tools: tuple[str, ...]
    tool_choice: Any
    body: Any
    turn: int
    """From 0, per conversation."""

    @property
    def wish(self) -> str:
        """The first thing the user said."""
        return next((m.text for m in self.messages if m.role == "user"), "")

    @property
    def last(self) -> Said:
        """The newest message: what a tool said, mostly."""
        return self.messages[-1]


# --- turns ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """One tool call of a turn; ``arguments`` is sent as it is when it is text (malformed, perhaps)."""

    name: str
    arguments: Mapping[str, Any] | str
    id: str | None = None
    """None: ``call_<turn>_<n>``; ``""``: none is sent."""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Turn:
    """What the model says: words, calls, or both."""

    text: str = ""
    calls: tuple[Wanted, ...] = ()
    finish: str | None = None
    """In the words of OpenAI (``stop``, ``length``, ``content_filter``, ``tool_calls``); None: what fits."""
    usage: tuple[int, int] | None = (11, 7)
    cut: bool = False
    """The connection is gone before the end: in the middle of the last call, or after the words."""

    @property
    def why(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")


Step = Turn | Callable[[Asked], Turn]


def say(text: str, **more: Any) -> Turn:
    """Words and nothing else."""
    return Turn(text=text, **more)


def call(name: str, /, text: str = "", id: str | None = None, **arguments: Any) -> Turn:
    """One tool call, with words before it if ``text`` is given."""
    return Turn(text=text, calls=(Wanted(name, arguments, id),))


def calls(*wanted: Wanted, text: str = "", **more: Any) -> Turn:
    """Several calls at once."""
    return Turn(text=text, calls=wanted, **more)


def malformed(name: str, raw: str, *, id: str | None = None) -> Turn:
    """A call whose arguments are ``raw``, which need not be JSON."""
    return Turn(calls=(Wanted(name, raw, id),))


def cut(text: str = "", *wanted: Wanted) -> Turn:
    """A turn that breaks off; streamed, the last call is cut in the middle of its arguments."""
    return Turn(text=text, calls=wanted, cut=True)


@dataclass(frozen=True)
class Fail:
    """An HTTP status instead of an answer."""

    code: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Behave:
    """Any behaviour of ``fake_model_server`` as a turn: ``Behave(fake.stall)``."""

    behaviour: Callable[[Exchange], None]


Script = Sequence[Step | Fail | Behave]


# --- the server -----------------------------------------------------------------------------------


class ScriptedModel(FakeModelServer):
    """Serves a script; with a mapping, the one whose key stands in the user's first message (``""``: any).

    ``model.asked`` lists every request as :class:`Asked`. Who repeats a request (same ``Idempotency-Key``)
    gets the same turn again, unless that turn was broken: then the next.
    """

    def __init__(self, script: Script | Mapping[str, Script]) -> None:
        scripts = script if isinstance(script, Mapping) else {"": script}
        assert scripts and all(scripts.values()), "an empty script says nothing"
        self._scripts = scripts
        self._turns: dict[str, int] = {}
        self._given: dict[str, int] = {}
        self._turn_lock = threading.Lock()
        self.asked: list[Asked] = []
        super().__init__(self._serve, tags=self._listing)

    def _serve(self, x: Exchange) -> None:
        asked = understood(x.seen)
        asked, step = self._next_step(asked, x.seen.headers.get("Idempotency-Key"))
        self.asked.append(asked)
        match step:
            case Fail():
                status(step.code, step.message, **dict(step.headers))(x)
            case Behave():
                step.behaviour(x)
            case Turn():
                answer(x, asked, step)
            case _:
                answer(x, asked, step(asked))

    def _next_step(self, asked: Asked, idempotency_key: str | None) -> tuple[Asked, Step | Fail | Behave]:
        with self._turn_lock:
            name = max((name for name in self._scripts if name in asked.wish), key=len, default=None)
            assert name is not None, f"no script for {asked.wish[:200]!r}"
            script = self._scripts[name]
            turn = self._given.get(idempotency_key or "")
            if turn is None:
                turn = self._turns.get(name, 0)
                self._turns[name] = turn + 1
            step = script[min(turn, len(script) - 1)]
            broken = isinstance(step, Fail | Behave) or (isinstance(step, Turn) and step.cut)
            if idempotency_key and not broken:  # who repeats a broken turn goes on to the next
                self._given[idempotency_key] = turn
            return replace(asked, turn=turn), step

    def _listing(self, x: Exchange) -> None:
        """Each protocol's own list of models."""
        if x.seen.path == "/api/tags":
            as_json({"models": [{"name": MODEL, "details": {"family": "llama"}}]})(x)
        elif x.seen.path == "/v1/models":
            as_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})(x)
        else:
            status(404)(x)

    def env(self, kind: Dialect = "openai", name: str = "fake") -> dict[str, str]:
        """Environment that makes a daemon ask this model first."""
        prefix = f"RUNLOOP__MODELS__PROVIDERS__{name.upper()}__"
        return {
            f"{prefix}KIND": kind,
            f"{prefix}BASE_URL": f"{self.url}/v1" if kind == "openai" else self.url,
            f"{prefix}MODEL": MODEL,
            "RUNLOOP__MODELS__DEFAULT": name,
        }


def understood(seen: Seen) -> Asked:
    """A request of any dialect, as turns see it."""
    dialect: Dialect = (
        "anthropic"
        if seen.path.endswith("/messages")
        else "ollama"
        if seen.path.endswith("/api/chat")
        else "openai"
    )
    body = seen.body
    tools = [tool.get("function", tool)["name"] for tool in body.get("tools", [])]
    messages = [said for message in body["messages"] for said in _said(message)]
    if body.get("system"):
        messages.insert(0, Said("system", body["system"]))
    stream = body.get("stream", dialect == "ollama")
    choice = body.get("tool_choice")
    return Asked(dialect, bool(stream), tuple(messages), tuple(tools), choice, body, turn=0)


def _said(message: dict[str, Any]) -> list[Said]:
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        return [Said("tool", content, answers=message.get("tool_call_id") or message.get("tool_name"))]
    if isinstance(content, str):
        wanted = [(c.get("id", ""), c["function"]) for c in message.get("tool_calls", [])]
        return [Said(role, content, tuple((id, f["name"], _loaded(f["arguments"])) for id, f in wanted))]
    results = [
        Said("tool", str(b.get("content", "")), answers=b["tool_use_id"])
        for b in content
        if b["type"] == "tool_result"
    ]
    text = "".join(b["text"] for b in content if b["type"] == "text")
    asked = tuple((b["id"], b["name"], b["input"]) for b in content if b["type"] == "tool_use")
    return results + ([Said(role, text, asked)] if text or asked else [])


def _loaded(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments


# --- answers in three dialects --------------------------------------------------------------------


def answer(x: Exchange, asked: Asked, turn: Turn) -> None:
    """Say ``turn`` the way the request wants it."""
    wanted = [
        replace(w, id=f"call_{asked.turn}_{n}" if w.id is None else w.id) for n, w in enumerate(turn.calls)
    ]
    turn = replace(turn, calls=tuple(wanted))
    whole, streamed = _DIALECTS[asked.dialect]
    if not asked.stream:
        body = json.dumps(whole(turn)).encode()
        if turn.cut:
            x.head(Content_Type="application/json", Content_Length=str(len(body)))
            x.write(body[: len(body) // 2])
            x.cut()
        else:
            x.whole(body)
        return
    kind = "application/x-ndjson" if asked.dialect == "ollama" else "text/event-stream"
    x.chunks(*streamed(turn), content_type=kind, end=not turn.cut)


def fragments(text: str) -> list[str]:
    """``text`` in pieces of a few characters, or a few hundred pieces."""
    size = max(7, len(text) // 300)
    return [text[at : at + size] for at in range(0, len(text), size)]


def _openai(turn: Turn) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    if turn.calls:
        message["tool_calls"] = [_openai_call(w) for w in turn.calls]
    value: dict[str, Any] = {
        "id": "x",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": turn.why}],
    }
    if turn.usage is not None:
        value["usage"] = {"prompt_tokens": turn.usage[0], "completion_tokens": turn.usage[1]}
    return value


def _openai_call(wanted: Wanted) -> dict[str, Any]:
    row: dict[str, Any] = {
        "type": "function",
        "function": {"name": wanted.name, "arguments": wanted.text},
    }
    return row | ({"id": wanted.id} if wanted.id else {})


def _openai_stream(turn: Turn) -> list[bytes]:
    deltas: list[dict[str, Any]] = [{"content": piece} for piece in fragments(turn.text)]
    # Every call is opened first, then their arguments come in turns: a reader must go by the index.
    for n, wanted in enumerate(turn.calls):
        head = {"index": n, **_openai_call(replace(wanted, arguments=""))}
        deltas.append({"tool_calls": [head]})
    pending = {n: fragments(w.text) for n, w in enumerate(turn.calls)}
    if turn.cut and pending:
        last = pending[len(pending) - 1]
        del last[len(last) // 2 :]
    while any(pending.values()):
        for n, left in pending.items():
            if left:
                deltas.append({"tool_calls": [{"index": n, "function": {"arguments": left.pop(0)}}]})
    events = [{"model": MODEL, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if turn.cut:
        return sse(*events)
    events.append({"model": MODEL, "choices": [{"index": 0, "delta": {}, "finish_reason": turn.why}]})
    if turn.usage is not None:
        counts = {"prompt_tokens": turn.usage[0], "completion_tokens": turn.usage[1]}
        events.append({"model": MODEL, "choices": [], "usage": counts})
    return sse(*events, "[DONE]")


_ANTHROPIC_WHY = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}


def _anthropic(turn: Turn) -> Any:
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    content += [{"type": "tool_use", "id": w.id, "name": w.name, "input": w.arguments} for w in turn.calls]
    counts = turn.usage or (0, 0)
    return {
        "model": MODEL,
        "content": content,
        "stop_reason": _ANTHROPIC_WHY.get(turn.why, turn.why),
        "usage": {"input_tokens": counts[0], "output_tokens": counts[1]},
    }


def _anthropic_stream(turn: Turn) -> list[bytes]:
    counts = turn.usage or (0, 0)
    start: Any = {"type": "message_start", "message": {"model": MODEL, "usage": {"input_tokens": counts[0]}}}
    rows: list[Any] = [start, {"type": "ping"}]
    if turn.text:
        rows.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}})
        rows += [_block_delta(0, type="text_delta", text=piece) for piece in fragments(turn.text)]
        rows.append({"type": "content_block_stop", "index": 0})
    for n, wanted in enumerate(turn.calls, 1 if turn.text else 0):
        block: Any = {"type": "tool_use", "id": wanted.id, "name": wanted.name, "input": {}}
        rows.append({"type": "content_block_start", "index": n, "content_block": block})
        rows += [_block_delta(n, type="input_json_delta", partial_json=p) for p in fragments(wanted.text)]
        rows.append({"type": "content_block_stop", "index": n})
    if turn.cut:
        rows = rows[: -2 if turn.calls else -1]
    else:
        why = _ANTHROPIC_WHY.get(turn.why, turn.why)
        delta = {"type": "message_delta", "delta": {"stop_reason": why}}
        rows += [delta | {"usage": {"output_tokens": counts[1]}}, {"type": "message_stop"}]
    return [sse(row, event=row["type"])[0] for row in rows]


def _block_delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _ollama(turn: Turn) -> Any:
    message = {"role": "assistant", "content": turn.text} | _ollama_calls(turn)
    return {"model": MODEL, "message": message, "done": True} | _ollama_end(turn)


def _ollama_calls(turn: Turn) -> dict[str, Any]:
    if not turn.calls:
        return {}
    # No id: this protocol had none for long. Arguments are an object here, not text.
    return {"tool_calls": [{"function": {"name": w.name, "arguments": w.arguments}} for w in turn.calls]}


def _ollama_end(turn: Turn) -> dict[str, Any]:
    counts = {} if turn.usage is None else {"prompt_eval_count": turn.usage[0], "eval_count": turn.usage[1]}
    return {"done_reason": "length" if turn.why == "length" else "stop", **counts}


def _ollama_stream(turn: Turn) -> list[bytes]:
    rows: list[dict[str, Any]] = [
        {"model": MODEL, "message": {"role": "assistant", "content": piece}, "done": False}
        for piece in fragments(turn.text)
    ]
    for wanted in turn.calls:
        message = {"role": "assistant", "content": ""} | _ollama_calls(Turn(calls=(wanted,)))
        rows.append({"model": MODEL, "message": message, "done": False})
    if turn.cut:
        whole = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return [whole[:-10]]
    end = {"model": MODEL, "message": {"role": "assistant", "content": ""}, "done": True} | _ollama_end(turn)
    return [json.dumps(row).encode() + b"\n" for row in [*rows, end]]


_DIALECTS: dict[Dialect, tuple[Callable[[Turn], Any], Callable[[Turn], list[bytes]]]] = {
    "openai": (_openai, _openai_stream),
    "anthropic": (_anthropic, _anthropic_stream),
    "ollama": (_ollama, _ollama_stream),
}
