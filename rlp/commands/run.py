"""``rlp run``: submit an opening, follow it, and put the questions it raises to a person."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rlp.ask import MOOT, ask
from rlp.follow import Follower
from rlp.live import Live, watching
from rlp.prepare import Wish, prepare
from rlp.progress import Progress
from rlp.session import Session
from runloop import approval as held
from runloop.clock import SystemClock
from runloop.errors import ConflictError, RefusedError, RunloopError
from runloop.escape import MORE, block
from runloop.exits import Exit
from runloop.quantities import ago

__all__ = ["Following", "follow", "run", "start", "submit"]

SETTLED = ("promise.resolved", "promise.timed_out")
WAIT_S = 1.0
"""Longest silence before the ledger is looked at again, whatever the bus said."""
REFUSALS = ("approval.", "action.", "cap.", "policy.", "operator.")
"""Codes of errors that mean somebody said no."""


def run(session: Session, *, opening: str, params: tuple[str, ...], detach: bool) -> Exit:
    """Run an opening and follow it to its end."""
    wish = prepare(session, opening, params)
    return start(session, wish, detach=detach)


def start(session: Session, wish: Wish, *, detach: bool = False, prompt: str | None = None) -> Exit:
    """Submit what was prepared and, unless detached, follow it."""
    run_id = submit(session, wish, prompt=prompt)
    if detach:
        if session.json:
            session.console.json({"run": run_id})
        else:
            session.console.data(run_id)
            session.console.say(f"'rlp trace {run_id[:8]}' shows it, 'rlp approvals' what it waits for")
        return Exit.OK
    return follow(session, run_id)


def submit(session: Session, wish: Wish, *, prompt: str | None = None) -> str:
    """Hand the run to the daemon; returns its id."""
    answer = session.ask_compiling(
        "run.submit",
        source=wish.source,
        name=wish.opening.name,
        path=str(Path(wish.path).absolute()),
        params=wish.params,
        agents_dir=str(Path("agents").absolute()),
        openings=dict(wish.nested),
        origin={"via": "cli", "prompt": prompt, "interactive": session.interactive},
    )
    return str(answer["run"])


def follow(session: Session, run_id: str) -> Exit:
    """Show a run to its end, asking what must be asked; the outcome becomes the exit code."""
    return Following(session, run_id).to_the_end()


class Following:
    """One run being watched. A subclass shows it in another way."""

    def __init__(self, session: Session, run_id: str, progress: Progress | None = None) -> None:
        self._session = session
        self._run = run_id
        self._live: Live | None = watching(session.console, session.environ) if progress is None else None
        self._progress = progress or Progress(session.console, live=self._live)
        idle = None if self._live is None else self._stand
        self._follower = Follower(session, run_id, on_delta=self._delta, on_idle=idle)
        self._open: dict[str, dict[str, Any]] = {}
        """Approvals asked for and not decided: approval id -> payload of ``action.requested``."""
        self._asked: dict[str, dict[str, Any]] = {}
        """Questions to a person that nobody has answered: promise id -> payload of ``promise.created``."""
        self._of: dict[str, str] = {}
        """Approval or promise -> the run inside ours that it belongs to."""
        self._undoable: dict[str, dict[str, Any]] = {}
        """Approved by us, in their undo window: approval id -> approval."""
        self._finished: dict[str, Any] | None = None
        self._interrupted = False

    def to_the_end(self) -> Exit:
        with self._live or nullcontext():
            try:
                return self._to_the_end()
            finally:
                self._session.console.wipe()

    def _to_the_end(self) -> Exit:
        while self._finished is None:
            try:
                events = self._follower.next(WAIT_S)
                with self._session.console.together():
                    for event in events:
                        self._take(event)
                    if self._finished is None:
                        self._stand()
                if (self._open or self._asked) and self._finished is None:
                    if not self._session.interactive:
                        return self._parked()
                    if not self._ask_all():
                        return self._parked()
            except KeyboardInterrupt:
                if self._interrupted:
                    raise
                self._interrupt()
        return self._closing()

    def _stand(self) -> None:
        """Show where the run stands, unless a question is about to be put."""
        if not (self._open or self._asked):
            self._progress.stand(SystemClock().now_ms())

    def _take(self, event: dict[str, Any]) -> None:
        payload = event["payload"]
        if not self._session.json:
            self._progress.show(event)
        elif event["run"] == self._run:
            self._session.console.json({"event": event})
        match event["kind"]:
            case "action.requested":
                self._open[payload["approval"]] = payload
                self._of[payload["approval"]] = event["run"]
            case "action.decided":
                self._open.pop(payload["approval"], None)
                if payload["decision"] != "approved":
                    self._undoable.pop(payload["approval"], None)
                elif payload["dispatch_after_ms"] > event["ts_ms"] and payload["approval"] in self._undoable:
                    left = ago(payload["dispatch_after_ms"] - event["ts_ms"])
                    self._session.console.say(f"  leaves in {left}; Ctrl-C takes it back")
            case "promise.created" if payload["resolver"] == "operator":
                self._asked[payload["promise"]] = payload
                self._of[payload["promise"]] = event["run"]
            case "promise.resolved" | "promise.timed_out":
                self._asked.pop(payload["promise"], None)
            case "action.claimed":
                self._undoable.pop(payload["approval"], None)
            case "run.finished" if event["run"] == self._run:
                self._finished = payload
            case "run.finished":  # nobody waits for an answer in there any more
                for name in [name for name, of in self._of.items() if of == event["run"]]:
                    self._open.pop(name, None)
                    self._asked.pop(name, None)

    def _delta(self, delta: dict[str, Any]) -> None:
        if self._session.console.style.verbose and not self._session.json:
            self._progress.delta(delta)

    # --- questions --------------------------------------------------------------------------------

    def _ask_all(self) -> bool:
        """Put every open question; False when the person wants to decide later."""
        for approval_id in list(self._open):
            if approval_id in self._open and not self._ask(approval_id):
                return False
        return all(self._answer(name) for name in list(self._asked) if name in self._asked)

    def _answer(self, name: str) -> bool:
        """Have a person answer an agent's question; False to answer it later."""
        console, stdin, asked = self._session.console, self._session.stdin, self._asked[name]
        assert stdin is not None
        console.note(f"{asked['node']}  the agent {asked['agent']} asks you, in words of its own:", "bold")
        for line in block(asked["question"]):
            console.note(f"{MORE}{line}")  # an agent's words never stand where ours begin
        if asked["choices"]:
            console.note(f"{MORE}one of: {', '.join(asked['choices'])}")
        settled = partial(self._is_settled, name)
        question = "your answer (no password; empty: later) "
        words = ask(stdin, console.err, question, moot=settled, as_typed=True)
        if words == MOOT:
            self._asked.pop(name, None)
            return True
        if not words:
            return False
        try:
            self._session.ask("promise.resolve", promise=name, value=words)
        except RefusedError as error:  # none of the choices: ask again
            console.error(error)
            return True
        except ConflictError as error:
            console.error(error)
        self._asked.pop(name, None)
        return True

    def _is_settled(self, name: str) -> bool:
        return any(
            event["kind"] == "run.finished"
            or (event["kind"] in SETTLED and event["payload"]["promise"] == name)
            for event in self._follower.peek()
        )

    def _ask(self, approval_id: str) -> bool:
        console, stdin = self._session.console, self._session.stdin
        assert stdin is not None
        approval = self._session.ask("approvals.show", approval=approval_id)
        content = held.content_of(approval)
        console.note(f"{approval['node']}  needs you: {held.bare(approval['action'])}", "bold")
        for line in held.describe(approval, content, width=console.width):
            console.note(line)
        while True:
            answer = ask(
                stdin,
                console.err,
                "approve? [y/N/v] (v shows every byte) ",
                moot=lambda: self._decided_elsewhere(approval_id),
            )
            if answer in ("v", "view"):
                for line in held.raw_lines(content, width=console.width):
                    console.note(line)
                continue
            break
        if answer is None:
            return False
        self._open.pop(approval_id, None)
        if answer == MOOT:
            console.say("  decided elsewhere")
            return True
        yes = answer in ("y", "yes")
        try:
            held.decide(self._session.client(), approval, "approve" if yes else "deny")
        except ConflictError as error:  # somebody was quicker; the ledger says who
            console.error(error)
            return True
        if yes:
            self._undoable[approval_id] = approval
        return True

    def _decided_elsewhere(self, approval_id: str) -> bool:
        return any(
            event["kind"] == "run.finished"
            or (event["kind"] == "action.decided" and event["payload"]["approval"] == approval_id)
            for event in self._follower.peek()
        )

    def _interrupt(self) -> None:
        """Ctrl-C: take back what can be taken back, else end the run; a second one leaves at once."""
        console = self._session.console
        console.note("")
        self._session.hang_up()  # a question may have been cut in half; the next one gets a fresh connection
        if self._undoable:
            for approval_id, approval in list(self._undoable.items()):
                del self._undoable[approval_id]
                try:
                    held.decide(self._session.client(), approval, "undo", "taken back at the prompt")
                except RunloopError as error:
                    console.error(error)
            return
        self._interrupted = True
        console.note(f"rlp: cancelling {self._run}; Ctrl-C again leaves it to the daemon", "yellow")
        with suppress(ConflictError):  # it finished meanwhile
            self._session.ask("run.cancel", run=self._run, reason="interrupted at the terminal")

    # --- ends -------------------------------------------------------------------------------------

    def _parked(self) -> Exit:
        console = self._session.console
        for approval_id, payload in self._open.items():
            if self._session.json:
                console.json({"waiting": {"run": self._run, **payload}})
            action = payload["action"]
            console.note(f"rlp: {payload['node']} waits for a person: {held.bare(action)}", "yellow")
            console.note(
                f"rlp: read and decide with: rlp approve {approval_id}   (or: rlp deny {approval_id})"
            )
        for name, asked in self._asked.items():
            if self._session.json:
                console.json({"waiting": {"run": self._run, **asked}})
            who = f"{asked['node']} waits for your answer; the agent {asked['agent']} asks"
            console.note(f"rlp: {who}:", "yellow")
            for line in block(asked["question"]):
                console.note(f"{MORE}{line}")
            console.note(f"rlp: answer with: rlp promise resolve {name} --text ANSWER")
        if not self._open and not self._asked:
            console.note("rlp: nothing is decided; 'rlp approvals' lists what waits", "yellow")
        if self._session.json:
            console.json({"result": {"run": self._run, "outcome": "parked", "exit": int(Exit.PARKED)}})
        return Exit.PARKED

    def _closing(self) -> Exit:
        assert self._finished is not None
        code = self._exit(self._finished)
        if self._session.json:
            result = {"run": self._run, **self._finished, "exit": int(code)}
            self._session.console.json({"result": result})
        elif code is not Exit.OK:
            self._session.console.note(f"rlp: see 'rlp trace {self._run[:8]}' for what happened")
        return code

    def _exit(self, finished: dict[str, Any]) -> Exit:
        code = str((finished.get("error") or {}).get("code", ""))
        refused = code.startswith(REFUSALS)
        if finished["outcome"] == "succeeded":
            # The opening's success clause held, and yet somebody said no to what it asked for.
            return Exit.REFUSED if refused else Exit.OK
        if self._interrupted:
            return Exit.INTERRUPTED
        if code == "fork.divergence":
            return Exit.DIVERGED
        return Exit.REFUSED if refused else Exit.FAILED
