"""A run as a person reads it: committed events in, lines out.

Knows: which events are worth a line, how long a node took, what a draft looks like. Does not know: where
events come from, or what is to be done about a held action. Everything on stderr, except the closing lines,
which are the command's data.
"""

from __future__ import annotations

from typing import Any

from rlp.board import Board, Row, one_row
from rlp.live import Live
from rlp.output import Console
from rlp.tally import Tally
from runloop.escape import block, fold
from runloop.quantities import ago

__all__ = ["Progress"]

MAX_DRAFT_LINES = 200
MAX_RESULT_LINES = 40
"""Of a result that is no draft; the whole of it is in the artifact."""


class Progress:
    """Prints the events of one run as they come."""

    def __init__(self, console: Console, path: str = "", *, live: Live | None = None) -> None:
        """``path``: of a run inside the one that is watched, the nodes it lies below, each with a slash.
        ``live``: where the nodes stand as rows while the run goes on."""
        self._console = console
        self._live = live
        self._board = Board()
        self._path = path
        self._run: str | None = None
        self._inside: dict[str, Progress] = {}
        """The runs that serve nodes of this one, and those within them."""
        self._agents: dict[str, str] = {}
        self._since: dict[tuple[str, int], int] = {}
        self._began = 0
        self._width = 8
        self._results: list[str] = []
        self._outputs: dict[tuple[str, str], list[Any]] = {}
        self._rules_told = False
        self.tally = Tally()

    def show(self, event: dict[str, Any]) -> None:
        """Print what the event deserves: nothing, a line, or a draft."""
        self._run = self._run or event["run"]
        if event["run"] != self._run:
            self._show_inside(event)
            return
        self.tally.take(event)
        self._board.take(event)
        handler = getattr(self, "_on_" + event["kind"].replace(".", "_"), None)
        if handler is not None:
            handler(event, event["payload"])

    def _show_inside(self, event: dict[str, Any]) -> None:
        """An event of a run that serves a node: its lines bear the way to it, its spending is ours."""
        inner = self._inside.get(event["run"])
        if inner is None:
            parent = event["payload"].get("parent") or {}
            around = self._inside.get(parent.get("run", ""))
            path = "" if around is None else around._path
            inner = self._inside[event["run"]] = Progress(self._console, f"{path}{parent.get('node', '?')}/")
            inner._results = self._results
            inner._live = self._live
        inner.show(event)
        self._board.take(event, inner._path)
        self.tally.take_inside(event, inner._path)

    def stand(self, now_ms: int) -> None:
        """Say where the run stands, until something else is to be said."""
        columns, most = (0, 0) if self._live is None else self._live.room()
        if self._live is None or not columns:
            self._console.passing(f"  {self.tally.line(now_ms)}")
            return
        rows = self._board.rows(now_ms, width=columns, most=most, letters=self._console.can_draw)
        sums = self.tally.line(now_ms, names=False)
        last = one_row(f"  {sums}", columns - 2)  # the terminal writes ^C behind it, and must not wrap
        self._live.paint([Row(""), *rows, Row(last, "bold")])

    def delta(self, delta: dict[str, Any]) -> None:
        """Print an ephemeral word from inside a node."""
        self._line(str(delta.get("node", "?")), str(delta.get("text", "")), "dim")

    def _line(self, node: str, text: str, color: str | None = None) -> None:
        agent = self._agents.get(node, "")
        self._say(f"  {self._path + node:<{self._width}}  ", text + (f"  ({agent})" if agent else ""), color)

    def _say(self, lead: str, text: str, color: str | None = None) -> None:
        """Foreign text behind words of ours; what is too long for one row goes on behind a mark."""
        for row in fold(lead, text, self._console.width):
            self._console.say(row, color)

    # --- one method per kind of event -------------------------------------------------------------

    def _on_run_started(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._began = event["ts_ms"]
        self._agents = {node: pin["name"] for node, pin in payload["agents"].items()}
        self._width = max([8, *map(len, self._agents)])
        if self._path:
            return
        self._console.say(f"{payload['opening']}  run {event['run']}", "bold")
        if fork := payload.get("fork"):
            where = f" at {', '.join(fork['at'])}" if fork["at"] else ""
            self._console.say(f"  fork of {fork['run'][:8]}{where}")
        for name in (payload.get("origin") or {}).get("dev") or ():
            self._console.say(f"  dev: {name} is signed with this home's development key only", "yellow")

    def _on_run_resumed(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._console.say(f"  resumed: {payload['reason']}", "yellow")

    def _on_node_scheduled(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._since[payload["node"], payload["attempt"]] = event["ts_ms"]
        if self._live is not None and payload["attempt"] == 1:
            return  # its row says so
        again = f", attempt {payload['attempt']}" if payload["attempt"] > 1 else ""
        self._line(payload["node"], f"started{again}", "cyan")

    def _on_node_finished(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        node = payload["node"]
        began = self._since.get((node, payload["attempt"]), event["ts_ms"])
        took = ago(event["ts_ms"] - began)
        if payload["status"] == "succeeded":
            self._line(node, f"done in {took}", "green")
            self._values(node, payload.get("output") or {})
            return
        error = payload.get("error") or {}
        how = "timed out" if payload["status"] == "timed_out" else "failed"
        self._line(node, f"{how} after {took}: {error.get('message', 'no reason given')}", "red")

    def _on_node_expanded(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._line(payload["node"], f"{payload['items']} items", "cyan")

    def _on_node_gathered(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        good = payload["status"] == "succeeded"
        failed = f", {payload['failed']} failed" if payload["failed"] else ""
        self._line(
            payload["node"],
            f"{'done' if good else 'failed'}: {payload['items']} items{failed}",
            "green" if good else "red",
        )

    def _on_message_posted(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._line(payload["node"], f"{payload['act'].replace('_', ' ')} to {payload['to']}", "dim")

    def _on_node_skipped(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._line(payload["node"], f"skipped: {payload['reason']}", "yellow")

    def _on_node_cancelled(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._line(payload["node"], f"cancelled: {payload['reason'] or 'the run ended'}", "yellow")

    def _on_model_called(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if not payload["generated"] and not self._rules_told:
            self._rules_told = True
            self._line(
                payload["node"], f"no language model: answered by '{payload['provider']}' from a template"
            )
        elif payload["generated"]:
            self._line(payload["node"], f"answered by {payload['provider']} {payload['model']}")

    def _on_hostcall_delivered(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if self._console.style.verbose:
            verdict = "" if payload["ok"] else " refused"
            self._line(payload["node"], f"{payload['op']}{verdict}", "dim")

    def _on_cap_audit(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if payload["decision"] == "denied":
            self._line(payload.get("node") or "?", f"denied {payload['op']}: {payload['reason']}", "yellow")

    def _on_action_decided(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        note = f": {payload['note']}" if payload["note"] else ""
        self._line(payload["node"], f"{payload['decision']} by {payload['principal']}{note}", "yellow")

    def _on_email_sent(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        self._results.append(f"mail to {', '.join(payload['recipients'])} -> {payload['location']}")

    def _on_tool_called(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        verdict = {"done": "", "absent": " was not done", "unknown": ": nobody can tell whether it happened"}
        said = f"{payload['tool']}{verdict[payload['outcome']]}"
        self._line(payload["node"], said, None if payload["outcome"] == "done" else "red")

    def _on_artifact_created(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if self._path:
            return  # what it saves is what its node gives
        self._results.append(f"artifact {payload['name']}  {payload['blob'][:16]}")
        for value in self._outputs.get((str(payload.get("node")), str(payload.get("port"))), []):
            if not _is_draft(value):  # that was shown when it was written
                self._result(value)

    def _on_run_finished(self, event: dict[str, Any], payload: dict[str, Any]) -> None:
        if self._path:
            return  # the node that it serves says how it ended
        good = payload["outcome"] == "succeeded"
        head = f"{payload['outcome']} after {ago(event['ts_ms'] - self._began)}"
        if payload["clause"]:
            head += f", because {payload['clause']}"
        self._console.data(head, "green" if good else "red")
        if error := payload.get("error"):
            for row in fold("  ", str(error["message"]), self._console.width):
                self._console.data(row)
        for line in self._results:
            self._console.data(f"  {line}")
        if spend := self.tally.spend():
            self._console.data(f"  spent {spend}")
        self._console.data(f"  run {event['run']}")

    # --- what nodes produced ----------------------------------------------------------------------

    def _values(self, node: str, output: dict[str, Any]) -> None:
        for port, values in (output.get("ports") or {}).items():
            if isinstance(values, list):
                self._outputs[node, port] = values
            for value in values if isinstance(values, list) else []:
                if _is_draft(value):
                    self._draft(value)
                elif isinstance(value, dict) and isinstance(value.get("notes"), list):
                    for note in value["notes"][:20]:
                        self._say(f"  {'':<{self._width}}  note: ", str(note), "dim")

    def _draft(self, draft: dict[str, Any]) -> None:
        recipients = draft.get("to")
        shown = ", ".join(map(str, recipients)) if isinstance(recipients, list) else str(recipients or "?")
        width = self._console.width - 6
        head = [*fold("to: ", shown, width), *fold("subject: ", str(draft["subject"]), width), ""]
        self._quote(head, str(draft["body"]), MAX_DRAFT_LINES)

    def _result(self, value: Any) -> None:
        """What the run was for: what it saves, in words or as JSON."""
        import json

        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        self._quote([], text, MAX_RESULT_LINES)

    def _quote(self, head: list[str], text: str, limit: int) -> None:
        """Foreign text behind a bar, so that no line of it can be taken for one of ours."""
        if self._console.style.quiet:
            return
        lines = block(text, width=max(8, self._console.width - 6))
        more = [f"... {len(lines) - limit} more lines"] if len(lines) > limit else []
        for line in (*head, *lines[:limit], *more):
            self._console.say(f"    | {line}")


def _is_draft(value: object) -> bool:
    return isinstance(value, dict) and {"subject", "body"} <= set(value)
