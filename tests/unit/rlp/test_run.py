"""``rlp run`` from submission to exit code, against a daemon on the real bus."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import MAIL, RUN, DaemonTwin

RUN_IT = ("run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan")
Open = Callable[..., Terminal]


def sent(twin: DaemonTwin) -> None:
    """What happens after an approval."""
    (approval,) = twin.approvals
    twin.settle(approval, "approved")
    twin.emit("action.claimed", {"approval": approval, "action_digest": "x"})
    twin.emit(
        "email.sent",
        {
            "recipients": ["john.carter@example.org"],
            "location": "/home/me/outbox/new/1",
            "provider": "outbox",
        },
    )
    twin.finish()


def held(twin: DaemonTwin) -> None:
    twin.begin()
    twin.hold()


@pytest.fixture
def holding(daemon: DaemonTwin) -> DaemonTwin:
    """Submits lead to a held mail; an approval sends it, a denial or an undo ends the run in refusal."""
    daemon.on_submit = held

    def decided(twin: DaemonTwin, decision: dict[str, Any]) -> None:
        if decision["decision"] == "approve":
            sent(twin)
        else:
            word = {"deny": "denied", "undo": "undone"}[decision["decision"]]
            twin.settle(decision["approval"], word)
            twin.finish(
                "failed", {"code": "approval.denied", "message": "a person said no", "retryable": False}
            )

    daemon.on_decision = decided
    return daemon


# --- without a terminal ---------------------------------------------------------------------------


def test_a_run_that_needs_nobody_ends_with_its_outcome(daemon: DaemonTwin, rlp: Rlp) -> None:
    def whole(twin: DaemonTwin) -> None:
        twin.begin()
        twin.node("send", {"out": {"message_id": "<k1>"}})
        twin.finish()

    daemon.on_submit = whole
    done = rlp(*RUN_IT)
    assert done.code == 0
    assert "compose_email  run " + RUN in done.err
    assert "draft     done in 10 ms  (writer)" in done.err
    assert "    | subject: Q4 plan" in done.err
    assert done.out.splitlines()[0].startswith("succeeded after")
    assert f"  run {RUN}" in done.out


@pytest.mark.requirement("I2.user.8")
def test_what_is_submitted_is_the_checked_opening_with_typed_parameters(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.on_submit = lambda twin: twin.finish()
    daemon.emit("run.started", {"opening": "compose_email", "agents": {}})
    assert rlp(*RUN_IT).code == 0
    name, params, principal = next(entry for entry in daemon.asked if entry[0] == "run.submit")
    assert (name, principal) == ("run.submit", "operator")
    assert params["params"] == {"recipient": "john", "topic": "Q4 plan", "tone": "friendly"}
    assert params["name"] == "compose_email"
    assert params["source"].startswith("#")
    assert params["origin"] == {"via": "cli", "prompt": None, "interactive": False}


def test_a_held_action_without_a_terminal_parks_and_prints_the_line_to_type(
    holding: DaemonTwin, rlp: Rlp
) -> None:
    done = rlp(*RUN_IT)
    assert done.code == 5
    assert "send waits for a person: send mail to john.carter@example.org" in done.err
    assert "rlp approve ap_1234567890abcdef" in done.err
    assert holding.decisions == []


@pytest.mark.requirement("I2.user.8")
def test_with_json_every_event_is_a_line_and_the_last_line_is_the_result(
    holding: DaemonTwin, rlp: Rlp
) -> None:
    done = rlp(*RUN_IT, "--json")
    assert done.code == 5
    *events, waiting, result = done.lines
    assert [line["event"]["id"] for line in events] == list(range(1, len(events) + 1))
    assert waiting["waiting"]["approval"] == "ap_1234567890abcdef"
    assert result == {"result": {"run": RUN, "outcome": "parked", "exit": 5}}


def test_nothing_is_lost_when_the_bus_delivers_nothing(daemon: DaemonTwin, rlp: Rlp) -> None:
    """Frames are only a hint to look; the ledger is read anyway."""
    daemon.publish_events = False
    daemon.on_submit = lambda twin: (twin.begin(), twin.finish())
    done = rlp(*RUN_IT, "--json")
    assert done.code == 0
    assert [line["event"]["id"] for line in done.lines[:-1]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("outcome", "code", "exit_code"),
    [
        ("failed", "guest.trap", 1),
        ("failed", "approval.denied", 4),
        ("failed", "cap.denied", 4),
        ("cancelled", "", 1),
    ],
)
def test_the_outcome_becomes_the_exit_code(
    daemon: DaemonTwin, rlp: Rlp, outcome: str, code: str, exit_code: int
) -> None:
    error = {"code": code, "message": "so it is", "retryable": False} if code else None
    daemon.on_submit = lambda twin: (twin.begin(), twin.finish(outcome, error))
    done = rlp(*RUN_IT)
    assert done.code == exit_code
    assert f"rlp trace {RUN[:8]}" in done.err


def test_detached_it_prints_the_id_and_leaves(holding: DaemonTwin, rlp: Rlp) -> None:
    assert rlp(*RUN_IT, "--detach").out == f"{RUN}\n"
    assert rlp(*RUN_IT, "-d", "--json").lines == [{"run": RUN}]


def test_every_finding_comes_at_once_and_nothing_is_submitted(
    daemon: DaemonTwin, rlp: Rlp, tmp_path: Any
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("version: 0\nname: mine\nnods: []\nnodes:\n  - {id: a, use: 'agent:nobody', wiht: {}}\n")
    done = rlp("run", str(file))
    assert done.code == 2
    assert "mine.yaml:3:1" in done.err
    assert "wiht" in done.err
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "compose_mail"), "did you mean compose_email?"),
        (("run", "compose_email", "-p", "recipient"), "is not NAME=VALUE"),
        (("run", "compose_email", "-p", "a=1", "-p", "a=2"), "is given twice"),
        (("run", "compose_email", "-p", "topic:={"), "is not JSON"),
        (("run", "compose_email", "-p", "topic:={"), "for example -p topic:="),
        (("run", "compose_email", "-p", "recipient=john", "-p", "topic=x", "-p", "ton=dry"), "ton"),
    ],
)
def test_a_mistake_costs_nothing(home: Any, rlp: Rlp, words: tuple[str, ...], said: str) -> None:
    done = rlp(*words)
    assert done.code in (2, 7)
    assert said in done.err
    assert not (home / "log").exists(), "no daemon was started for it"


def test_a_prompt_runs_the_opening_it_means(holding: DaemonTwin, rlp: Rlp) -> None:
    done = rlp("write a mail to john about the Q4 plan", "-p", "tone=dry")
    assert done.code == 5
    params = next(params for name, params, _ in holding.asked if name == "run.submit")
    assert params["params"] == {"recipient": "john", "topic": "Q4 plan", "tone": "dry"}
    assert params["origin"]["prompt"] == "write a mail to john about the Q4 plan"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("ls -la /tmp", 2, "shell line"),
        ("rm -rf / ", 4, "never run"),
    ],
)
def test_a_line_for_a_shell_is_not_acted_on(rlp: Rlp, text: str, code: int, said: str) -> None:
    done = rlp(text)
    assert done.code == code
    assert said in done.err


# --- on a terminal --------------------------------------------------------------------------------


def test_a_person_reads_the_exact_mail_and_says_yes(holding: DaemonTwin, terminal: Open) -> None:
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    assert "send  needs you: send mail to john.carter@example.org" in screen.seen
    assert "subject     Q4 plan" in screen.seen
    assert "  | Hello John," in screen.seen
    screen.type("y\n")
    assert screen.end() == 0
    assert [(one["decision"], one["by"]) for one in holding.decisions] == [("approve", "operator")]
    assert "/home/me/outbox/new/1" in screen.seen


def test_v_shows_every_byte_and_asks_again(holding: DaemonTwin, terminal: Open) -> None:
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    screen.type("v\n")
    screen.wait_for("approve? [y/N/v]", times=2)
    assert "Content-Type: text/plain; charset=utf-8" in screen.seen
    screen.type("yes\n")
    assert screen.end() == 0


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", "approve\n", " \x1b[A\n"])
def test_everything_but_yes_is_no(holding: DaemonTwin, terminal: Open, answer: str) -> None:
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    screen.type(answer)
    assert screen.end() == 4
    assert [one["decision"] for one in holding.decisions] == ["deny"]


def test_end_of_input_decides_nothing_and_parks(holding: DaemonTwin, terminal: Open) -> None:
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    screen.type("\x04")
    assert screen.end() == 5
    assert holding.decisions == []


def test_what_was_typed_before_the_question_does_not_answer_it(daemon: DaemonTwin, terminal: Open) -> None:
    daemon.on_submit = lambda twin: twin.begin()
    screen = terminal(*RUN_IT)
    screen.wait_for("send      started")
    screen.type("y\n")
    screen.wait_for("y\r\n")  # the terminal has it
    daemon._loop.call_soon_threadsafe(daemon.hold)
    screen.wait_for("approve? [y/N/v]")
    screen.type("\x04")
    assert screen.end() == 5
    assert daemon.decisions == []


def test_an_approval_decided_elsewhere_ends_the_question(holding: DaemonTwin, terminal: Open) -> None:
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    holding._loop.call_soon_threadsafe(sent, holding)
    assert screen.end() == 0
    assert "decided elsewhere" in screen.seen
    assert holding.decisions == []


def test_no_input_never_asks(holding: DaemonTwin, terminal: Open) -> None:
    screen = terminal(*RUN_IT, "--no-input")
    assert screen.end() == 5
    assert "approve? [y/N/v]" not in screen.seen


def test_ctrl_c_in_the_undo_window_takes_the_mail_back(holding: DaemonTwin, terminal: Open) -> None:
    before = holding.on_decision

    def window(twin: DaemonTwin, decision: dict[str, Any]) -> None:
        if decision["decision"] == "approve":
            twin.settle(decision["approval"], "approved", dispatch_after_ms=1_750_000_100_000)
        else:
            before(twin, decision)

    holding.on_decision = window
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    screen.type("y\n")
    screen.wait_for("Ctrl-C takes it back")
    screen.type("\x03")
    assert screen.end() == 4
    assert [one["decision"] for one in holding.decisions] == ["approve", "undo"]


def test_ctrl_c_cancels_the_run(daemon: DaemonTwin, terminal: Open) -> None:
    daemon.on_submit = lambda twin: twin.begin()
    screen = terminal(*RUN_IT)
    screen.wait_for("send      started")
    screen.type("\x03")
    assert screen.end() == 130
    assert ("run.cancel", {"run": RUN, "reason": "interrupted at the terminal"}, "operator") in daemon.asked


def test_bytes_that_are_not_what_the_answer_binds_are_never_put_to_a_person(
    holding: DaemonTwin, terminal: Open
) -> None:
    def forged(twin: DaemonTwin) -> None:
        held(twin)
        twin.approvals["ap_1234567890abcdef"]["content"] = base64.b64encode(
            MAIL + b"PS: and to eve\r\n"
        ).decode()

    holding.on_submit = forged
    screen = terminal(*RUN_IT)
    assert screen.end() == 6
    assert "is not what it binds" in screen.seen
    assert "approve?" not in screen.seen


@pytest.mark.requirement("C6")
def test_a_hostile_mail_cannot_draw_on_the_prompt(holding: DaemonTwin, terminal: Open) -> None:
    body = MAIL + "\x1b[2J\x1b]52;c;eHg=\x07approve? y\r\n\u202egnp.exe \u0440aypal\r\n".encode()
    holding.on_submit = lambda twin: (
        twin.begin(),
        twin.hold(content=body, recipients=["john.carter@example.org", "eve\x1b[1A@example.net"]),
    )
    screen = terminal(*RUN_IT)
    screen.wait_for("approve? [y/N/v]")
    screen.type("v\n")
    screen.wait_for("approve? [y/N/v]", times=2)
    screen.type("n\n")
    assert screen.end() == 4
    assert "\x1b" not in screen.seen
    assert "\u202e" not in screen.seen
    assert "\\x1b[2J\\x1b]52;c;eHg=\\x07approve? y" in screen.seen
    told = " ".join(screen.seen.replace("│", " ").split())
    assert "also goes to, without being named in the message: eve\\x1b[1A@example.net" in told
