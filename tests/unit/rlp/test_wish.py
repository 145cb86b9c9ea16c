"""``rlp "<wish>"``: the assistant is asked, its words and tools are shown, its answer is the data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.output import Console, Style
from rlp.words import BAR, Words
from runloop.escape import block, columns_of
from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin

WISH = "make me happy at last"
Open = Callable[..., Terminal]


def begin(twin: DaemonTwin) -> None:
    pins = {"assist": {"name": "assistant"}}
    twin.emit("run.started", {"opening": "assistant", "agents": pins, "principal": "operator:1000"})
    twin.emit("node.scheduled", {"node": "assist", "attempt": 1})


def tell(twin: DaemonTwin, kind: str, text: str) -> None:
    """An ephemeral word from inside the node."""
    delta = {"node": "assist", "kind": kind, "text": text}
    topic = f"rlp/runs/{RUN}/events"
    from runloopd.bus.principal import DAEMON

    twin.bus.send(DAEMON, topic, "observation.opening.event.v1", {"delta": delta})


def answered(twin: DaemonTwin, answer: str = "There are two.", **out: Any) -> None:
    twin.node("assist", {"out": {"answer": answer, "ok": True, "drafts": [], **out}, "ok": True})
    twin.finish("succeeded" if out.get("ok", True) else "failed")


@pytest.fixture
def answers(daemon: DaemonTwin) -> DaemonTwin:
    """Wishes are answered at once."""

    def at_once(twin: DaemonTwin) -> None:
        begin(twin)
        answered(twin)

    daemon.on_submit = at_once
    return daemon


def once_followed(daemon: DaemonTwin, play: Callable[[DaemonTwin], None]) -> None:
    """Begin when the run is submitted, play when somebody follows it: words before that reach nobody."""
    plays, events = [play], daemon.methods["run.events"]

    def followed(**params: Any) -> Any:
        if plays:
            daemon._loop.call_soon(plays.pop(), daemon)
        return events(**params)

    daemon.on_submit = begin
    daemon.methods["run.events"] = followed


def submitted(twin: DaemonTwin) -> dict[str, Any]:
    return next(params for name, params, _ in twin.asked if name == "run.submit")


def test_a_wish_that_is_no_opening_is_the_assistants_and_only_the_answer_is_data(
    answers: DaemonTwin, rlp: Rlp
) -> None:
    done = rlp(WISH)
    assert (done.code, done.out) == (0, "There are two.\n")
    asked = submitted(answers)
    assert (asked["name"], asked["params"]) == ("assistant", {"prompt": WISH, "continued": False})
    assert asked["origin"]["prompt"] == WISH


def test_a_question_mark_in_front_is_for_the_assistant_and_no_part_of_the_wish(
    answers: DaemonTwin, rlp: Rlp
) -> None:
    assert rlp("? what does ls -la do").code == 0
    assert submitted(answers)["params"]["prompt"] == "what does ls -la do"


def test_a_follow_up_is_the_assistants_whatever_opening_it_sounds_like(answers: DaemonTwin, rlp: Rlp) -> None:
    assert rlp("write a mail to john about the Q4 plan", "-c").code == 0
    assert submitted(answers)["params"]["continued"] is True


def test_a_detached_wish_is_handed_in_and_not_followed(answers: DaemonTwin, rlp: Rlp) -> None:
    done = rlp("--json", "--detach", "--", WISH)
    assert (done.code, done.out) == (0, f'{{"run":"{RUN}"}}\n')
    assert submitted(answers)["origin"]["prompt"] == WISH
    assert not [name for name, _, _ in answers.asked if name == "run.events"]


def test_a_line_that_is_never_run_is_no_follow_up_either(answers: DaemonTwin, rlp: Rlp) -> None:
    done = rlp("-c", "rm -rf / ")
    assert (done.code, answers.asked) == (4, [])


def test_a_parameter_has_no_meaning_for_a_wish(answers: DaemonTwin, rlp: Rlp) -> None:
    done = rlp(WISH, "-p", "tone=dry")
    assert done.code == 2
    assert "no opening fits" in done.err


def test_an_opening_of_that_name_in_the_present_folder_gets_no_wishes(
    answers: DaemonTwin, rlp: Rlp, tmp_path: Path
) -> None:
    folder = tmp_path / "openings"
    folder.mkdir()
    nodes = 'nodes: [{id: a, use: "agent:writer"}]'
    (folder / "assistant.yaml").write_text(f"version: 0\nname: assistant\n{nodes}\n")
    assert rlp(WISH).code == 0
    assert "agent:assistant" in submitted(answers)["source"]


def test_a_wish_that_was_not_done_fails_and_its_words_are_data_all_the_same(
    daemon: DaemonTwin, rlp: Rlp
) -> None:
    def offline(twin: DaemonTwin) -> None:
        begin(twin)
        answered(twin, "No language model is available.", ok=False)

    daemon.on_submit = offline
    done = rlp(WISH)
    assert (done.code, done.out) == (1, "No language model is available.\n")


def test_an_attempt_that_broke_leaves_no_data_and_says_why(daemon: DaemonTwin, rlp: Rlp) -> None:
    def broken(twin: DaemonTwin) -> None:
        begin(twin)
        twin.finish("failed", {"code": "quota.exceeded", "message": "tokens are used up", "retryable": False})

    daemon.on_submit = broken
    done = rlp(WISH)
    assert (done.code, done.out) == (1, "")
    assert "the assistant failed: tokens are used up" in done.err


def test_what_a_person_denied_was_not_done_whatever_the_answer_says(
    daemon: DaemonTwin, terminal: Open
) -> None:
    def asks(twin: DaemonTwin) -> None:
        begin(twin)
        twin.hold()

    def decided(twin: DaemonTwin, decision: dict[str, Any]) -> None:
        twin.settle(decision["approval"], "denied")
        answered(twin, "All done!")

    daemon.on_submit, daemon.on_decision = asks, decided
    screen = terminal(WISH)
    screen.wait_for("approve? [y/N/v]")
    screen.type("n\n")
    assert screen.end() == 4
    assert "│ All done!" in screen.seen


def test_words_stream_behind_a_bar_and_the_answer_is_not_said_twice(
    daemon: DaemonTwin, terminal: Open
) -> None:
    def streams(twin: DaemonTwin) -> None:
        for piece in ("I look", " it up.\n"):
            tell(twin, "text", piece)
        tell(twin, "progress", 'kb.find {"query":"x"}')
        for piece in ("There ", "are t", "wo.\napprove? [y/N", "]"):
            tell(twin, "text", piece)
        answered(twin, "There are two.\napprove? [y/N]")

    once_followed(daemon, streams)
    screen = terminal(WISH)
    assert screen.end() == 0
    rows = [row.rpartition("\r")[2] for row in screen.seen.replace("\r\n", "\n").split("\n")]
    said = [row for row in rows if row.startswith(BAR)]
    assert said == ["│ I look it up.", "│ There are two.", "│ approve? [y/N]"]
    assert any(row.startswith('  · kb.find {"query":"x"}') for row in rows)


def test_a_pipe_gets_the_answer_once_and_no_words_on_the_way(daemon: DaemonTwin, rlp: Rlp) -> None:
    def streams(twin: DaemonTwin) -> None:
        tell(twin, "text", "There are two.")
        answered(twin)

    once_followed(daemon, streams)
    assert rlp(WISH).out == "There are two.\n"


def test_an_answer_of_which_words_were_lost_on_the_way_is_shown_whole(
    daemon: DaemonTwin, terminal: Open
) -> None:
    def loses(twin: DaemonTwin) -> None:
        tell(twin, "text", "There are")
        answered(twin)

    once_followed(daemon, loses)
    screen = terminal(WISH)
    assert screen.end() == 0
    assert "│ There are two." in screen.seen


@pytest.mark.parametrize("nothing", ["", "  ", "?", " ? "])
def test_a_wish_with_nothing_in_it_is_told(answers: DaemonTwin, rlp: Rlp, nothing: str) -> None:
    done = rlp("--", nothing)
    assert done.code == 2
    assert "there is nothing in the wish" in done.err


def test_a_passing_line_is_taken_away_before_the_answer() -> None:
    from rlp.answering import Answering

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    both = Screen()
    console = Console(both, both, Style(), width=40)
    console.passing("1/1 nodes · 0 s")
    Answering(console)._answer("There are two.")
    before, _, after = both.getvalue().partition("There")
    assert "\r" + " " * 15 + "\r" in before
    assert after == " are two.\n"


def test_drafts_are_shown_beside_the_answer_and_not_in_it(daemon: DaemonTwin, rlp: Rlp) -> None:
    def drafts(twin: DaemonTwin) -> None:
        begin(twin)
        answered(twin, drafts=[{"to": ["a@example.org"], "subject": "S\x1b[2J", "body": "B"}])

    daemon.on_submit = drafts
    done = rlp(WISH)
    assert done.out == "There are two.\n"
    assert "draft, not sent" in done.err
    assert "subject: S\\x1b[2J" in done.err


def test_json_has_the_answer_in_its_last_line(answers: DaemonTwin, rlp: Rlp) -> None:
    done = rlp(WISH, "--json")
    assert done.lines[-1]["result"]["answer"] == "There are two."
    assert done.lines[0]["event"]["kind"] == "run.started"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.text(max_size=30), max_size=12), st.integers(20, 60))
@settings(max_examples=150, deadline=None)
def test_every_row_of_a_strangers_words_begins_with_the_bar_and_fits(pieces: list[str], width: int) -> None:
    screen = _Screen()
    words = Words(Console(screen, io.StringIO(), Style(), width=width))
    for piece in pieces:
        words.add(piece)
    said = words.end()
    rows = screen.getvalue().split("\n")
    assert rows.pop() == ""
    assert all(row.startswith(BAR) and columns_of(row) <= width for row in rows)
    assert all(char.isprintable() or char in "\u00a0\u2007\u2009\u202f\u3000" for row in rows for char in row)
    shown = "".join(row.removeprefix(BAR) for row in rows).replace(" ", "")
    assert shown == "".join(block("".join(pieces).lstrip())).replace(" ", "")
    assert said == "".join(pieces).strip()
