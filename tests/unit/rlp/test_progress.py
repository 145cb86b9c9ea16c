"""A run's events as lines for a person."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rlp.output import Console, Style
from rlp.progress import Progress

Event = dict[str, Any]


class Screen:
    def __init__(self, **style: bool) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.progress = Progress(Console(self.out, self.err, Style(**style)))
        self.clock = 1_000
        self.see("run.started", opening="o", agents={"draft": {"name": "writer"}, "send": {"name": "mailer"}})

    def see(self, kind: str, **payload: Any) -> None:
        self.clock += 100
        self.progress.show({"kind": kind, "ts_ms": self.clock, "run": "r1", "payload": payload})

    @property
    def last(self) -> str:
        return self.err.getvalue().splitlines()[-1]


def failed(status: str, **error: Any) -> Event:
    return {"node": "draft", "attempt": 1, "status": status, "output": None, "error": error or None}


@pytest.mark.requirement("I2.user.4")
@pytest.mark.parametrize(
    ("kind", "payload", "line"),
    [
        ("run.resumed", {"reason": "the daemon started"}, "  resumed: the daemon started"),
        ("node.scheduled", {"node": "draft", "attempt": 2}, "  draft     started, attempt 2  (writer)"),
        (
            "node.finished",
            failed("failed", message="no \x1b[2J good"),
            "  draft     failed after 0 ms: no \\x1b[2J good  (writer)",
        ),
        ("node.finished", failed("timed_out"), "  draft     timed out after 0 ms: no reason given  (writer)"),
        ("node.skipped", {"node": "send", "reason": "guard"}, "  send      skipped: guard  (mailer)"),
        ("node.cancelled", {"node": "send", "reason": ""}, "  send      cancelled: the run ended  (mailer)"),
        (
            "model.called",
            {"node": "draft", "generated": True, "provider": "ollama", "model": "m"},
            "  draft     answered by ollama m  (writer)",
        ),
        (
            "model.called",
            {"node": "draft", "generated": False, "provider": "rules", "model": "t"},
            "  draft     no language model: answered by 'rules' from a template  (writer)",
        ),
        (
            "cap.audit",
            {"node": "draft", "decision": "denied", "op": "mail.send", "reason": "not granted"},
            "  draft     denied mail.send: not granted  (writer)",
        ),
        (
            "action.decided",
            {"node": "send", "decision": "expired", "principal": "daemon", "note": "too late"},
            "  send      expired by daemon: too late  (mailer)",
        ),
    ],
)
def test_what_matters_is_one_line(kind: str, payload: Event, line: str) -> None:
    screen = Screen()
    screen.see(kind, **payload)
    assert screen.last == line


def test_what_does_not_matter_is_none() -> None:
    screen = Screen()
    before = screen.err.getvalue()
    screen.see("timer.set", timer="t", after_ms=1)
    screen.see("cap.audit", node="draft", decision="allowed", op="x", reason="y")
    screen.see("hostcall.delivered", node="draft", op="kb.read", ok=True)
    assert screen.err.getvalue() == before


def test_verbose_shows_host_calls_and_words_from_inside() -> None:
    screen = Screen(verbose=True)
    screen.see("hostcall.delivered", node="draft", op="kb.read", ok=False)
    assert screen.last == "  draft     kb.read refused  (writer)"
    screen.progress.delta({"node": "draft", "kind": "text", "text": "Hel\x07lo"})
    assert screen.last == "  draft     Hel\\x07lo  (writer)"


def test_notes_of_a_review_are_shown() -> None:
    screen = Screen()
    output = {"ports": {"review": [{"ok": False, "notes": ["no greeting"]}], "odd": "not a list"}}
    screen.see("node.finished", node="draft", attempt=1, status="succeeded", output=output)
    assert screen.last == "            note: no greeting"


@pytest.mark.requirement("I2.user.4")
def test_a_draft_is_shown_whole_up_to_a_bound_and_not_with_quiet() -> None:
    output = {"ports": {"out": [{"to": "a@b.c", "subject": "s", "body": "\n".join(map(str, range(300)))}]}}
    finished = {"node": "draft", "attempt": 1, "status": "succeeded", "output": output}
    screen = Screen()
    screen.see("node.finished", **finished)
    assert "    | to: a@b.c\n    | subject: s\n    | \n    | 0\n" in screen.err.getvalue()
    assert screen.last == "    | ... 100 more lines"
    quiet = Screen(quiet=True)
    quiet.see("node.finished", **finished)
    assert quiet.err.getvalue() == ""


def test_what_a_run_saves_is_shown_behind_a_bar() -> None:
    screen = Screen()
    ports = {"out": ["one\ntwo \x1b[2J"], "more": [{"n": 1}], "other": ["not saved"]}
    screen.see("node.finished", node="draft", attempt=1, status="succeeded", output={"ports": ports})
    assert "|" not in screen.err.getvalue()
    before = len(screen.err.getvalue())
    screen.see("artifact.created", name="draft.out.txt", node="draft", port="out", blob="ab" * 32)
    screen.see("artifact.created", name="draft.more.json", node="draft", port="more", blob="ab" * 32)
    assert screen.err.getvalue()[before:].splitlines() == [
        "    | one",
        "    | two \\x1b[2J",
        "    | {",
        '    |   "n": 1',
        "    | }",
    ]


def test_the_closing_lines_are_data() -> None:
    screen = Screen(quiet=True)
    screen.see("email.sent", recipients=["a@b.c"], location="/outbox/new/1")
    screen.see("artifact.created", name="draft.out", blob="ab" * 32)
    screen.see("run.finished", outcome="failed", clause=None, error={"message": "it broke"})
    assert screen.out.getvalue().splitlines() == [
        "failed after 300 ms",
        "  it broke",
        "  mail to a@b.c -> /outbox/new/1",
        "  artifact draft.out  abababababababab",
        "  run r1",
    ]


@pytest.mark.requirement("C6")
def test_no_words_of_a_guest_begin_a_row() -> None:
    screen = Screen()
    forged = "x" * 60 + ("  send      approved by you".ljust(80)) * 5
    draft = {"to": forged, "subject": forged, "body": "b"}
    output = {"ports": {"out": [draft], "review": [{"notes": [forged]}]}}
    before = len(screen.err.getvalue())
    screen.see("node.finished", **failed("failed", message=forged))
    screen.see("node.skipped", node="draft", reason=forged)
    screen.see("node.finished", node="draft", attempt=1, status="succeeded", output=output)
    screen.see("run.finished", outcome="failed", clause=None, error={"message": forged})
    lines = screen.err.getvalue()[before:].splitlines() + screen.out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.startswith("  send")]
    assert [line for line in lines if line.startswith("            │ ")]


def test_on_a_terminal_every_line_of_talk_and_data_is_folded_by_us() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = Terminal(), Terminal()
    console = Console(out, err, Style(), width=40)
    for say in (console.note, console.data):
        say("x" * 39 + " rlp: forged")
    console.rows([{"a": "y" * 100}], ("a",))
    for line in [*out.getvalue().splitlines(), *err.getvalue().splitlines()]:
        assert len(line) <= 40
        assert not line.startswith("rlp")
    piped = io.StringIO()
    Console(piped, piped, Style(), width=40).data("z" * 100)
    assert piped.getvalue() == "z" * 100 + "\n"
