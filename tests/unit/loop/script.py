"""A model that follows a script, behind the host of an agent under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runloop.guest_testing import NOW_MS, FakeHost, Refuse
from runloop.loop import Ended, Limits, Tool, pursue

Step = dict[str, Any] | Refuse | Callable[[dict[str, Any]], Any]


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "provider": "fake", "model": "m", "finish": "stop", **more}


def asks(*calls: tuple[str, Any], text: str = "", **more: Any) -> dict[str, Any]:
    """Calls by name and arguments; arguments that are text are malformed ones."""
    made = [
        {
            "id": f"c{number}",
            "name": name,
            **({"malformed": args} if isinstance(args, str) else {"arguments": args}),
        }
        for number, (name, args) in enumerate(calls)
    ]
    return {**says(text), "finish": "tools", "tool_calls": made, **more}


class Scene:
    """One loop with a scripted model: the last step is repeated for ever."""

    def __init__(self, *steps: Step, tools: list[Tool] | None = None, **answers: Any) -> None:
        self.steps = list(steps)
        self.tools = tools or []
        self.now = NOW_MS
        self.puts: list[dict[str, Any]] = []
        self.host = FakeHost(
            {
                "model.complete": self._answer,
                "artifact.put": self._put,
                "blob.read": self._read,
                "time.now": lambda _: {"now_ms": self.now},
                **answers,
            }
        )

    def run(self, wish: str = "How many notes?", *, limits: Limits | None = None, **more: Any) -> Ended:
        return pursue(self.host.host, wish, self.tools, system="You are terse.", limits=limits, **more)

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Arguments of every turn of the model."""
        return self.host.made("model.complete")

    def told(self, turn: int = -1) -> list[dict[str, Any]]:
        """What the model was given in a turn."""
        return list(self.turns[turn]["messages"])

    def observed(self, turn: int = -1) -> list[str]:
        """What tools said, as a turn was given it."""
        return [str(message["content"]) for message in self.told(turn) if message["role"] == "tool"]

    def _answer(self, args: dict[str, Any]) -> Any:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return step(args) if callable(step) else step

    def _put(self, args: dict[str, Any]) -> Any:
        self.puts.append(args)
        return {"name": args["name"], "digest": f"{len(self.puts):064x}", "size": len(args["text"].encode())}

    def _read(self, args: dict[str, Any]) -> Any:
        import base64

        data = self.puts[int(args["digest"], 16) - 1]["text"].encode()
        part = data[args["offset"] : args["offset"] + args["length"]]
        eof = args["offset"] + len(part) >= len(data)
        return {
            "base64": base64.b64encode(part).decode(),
            "offset": args["offset"],
            "size": len(data),
            "eof": eof,
        }
