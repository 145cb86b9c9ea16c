"""A wish as a person reads it: what the assistant says and does, and at the end its answer.

Knows: which events of the assistant's run are worth a line, what is data (the answer) and what is talk (all
else). Does not know: how a run is followed or questions are put (``commands.run``).
"""

from __future__ import annotations

from typing import Any

from rlp.output import Console
from rlp.progress import Progress
from rlp.words import Words, barred

__all__ = ["Answering"]


class Answering(Progress):
    """Prints the run of a wish: words and tools as they come, the answer as data."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._watched = console.out.isatty() and not console.style.json
        """Whether somebody reads the answer as it is made; a pipe gets it whole, at the end."""
        self._words = Words(console)
        self._last = ""
        """What the newest turn of the model was heard to say."""
        self.outcome: dict[str, Any] = {}
        """Port ``out`` of the assistant; empty until it is there."""
        self.denied = False
        """Whether a person refused something on the way."""

    def take_in(self, event: dict[str, Any]) -> None:
        """Learn from an event without a word: for ``--json``."""
        payload = event["payload"]
        if event["kind"] == "node.finished":
            self._hear(payload)
        elif event["kind"] == "action.decided":
            self.denied = self.denied or payload["decision"] == "denied"

    # --- while it goes on -------------------------------------------------------------------------

    def delta(self, delta: dict[str, Any]) -> None:
        """A word of the model, or a tool that is called."""
        match delta.get("kind"):
            case "text" if self._watched:
                self._words.add(str(delta.get("text", "")))
            case "progress":
                self._say("  · ", str(delta.get("text", "")), "dim")
            case "log" if self._console.style.verbose:
                super().delta(delta)

    def stand(self, now_ms: int) -> None:
        """As ever, but not into a row of words."""
        if not self._words.open:
            super().stand(now_ms)

    def _turn_over(self) -> None:
        self._last = self._words.end() or self._last

    def _say(self, lead: str, text: str, color: str | None = None) -> None:
        self._turn_over()
        super()._say(lead, text, color)

    def _on_run_started(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._began = event["ts_ms"]
        if self._console.style.verbose:
            super()._on_run_started(event, payload)

    def _on_node_scheduled(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if payload["attempt"] > 1 or self._console.style.verbose:
            super()._on_node_scheduled(event, payload)

    def _on_node_finished(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._turn_over()
        if payload["status"] != "succeeded" or self._console.style.verbose:
            super()._on_node_finished(event, payload)
        self._hear(payload)

    def _hear(self, payload: dict[str, Any]) -> None:
        ports = (payload.get("output") or {}).get("ports") or {}
        for value in ports.get("out") or ():
            if isinstance(value, dict) and isinstance(value.get("answer"), str):
                self.outcome = value

    def _on_model_called(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._turn_over()
        if self._console.style.verbose:
            super()._on_model_called(event, payload)

    def _on_action_requested(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._turn_over()

    def _on_promise_created(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._turn_over()

    def _on_action_decided(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        super()._on_action_decided(event, payload)
        self.denied = self.denied or payload["decision"] == "denied"

    def _on_artifact_created(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if self._console.style.verbose:
            super()._on_artifact_created(event, payload)

    # --- the end ----------------------------------------------------------------------------------

    def _on_run_finished(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if self._path:
            return
        self._turn_over()
        for draft in self.outcome.get("drafts") or ():
            if isinstance(draft, dict) and {"to", "subject", "body"} <= set(draft):
                self._console.say("  draft, not sent:")
                self._draft(draft)
        answer = str(self.outcome.get("answer", ""))
        if answer and not (self._watched and answer.strip() == self._last):
            self._answer(answer)
        if not self.outcome and (error := payload.get("error")):
            self._say("rlp: ", f"the assistant failed: {error['message']}", "red")
        spend = self.tally.spend()
        facts = [f"run {event['run']}", *([f"spent {spend}"] if spend else []), *self._results]
        self._console.say("  " + " · ".join(facts), "dim")

    def _answer(self, answer: str) -> None:
        if self._watched:
            self._console.wipe()
            for row in barred(answer, self._console.width):
                self._console.out.write(row + "\n")
        else:
            self._console.text(answer)
