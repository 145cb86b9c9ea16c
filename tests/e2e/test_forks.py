"""Forks, retries and comparisons of the main job: the installed commands, real guests, a real outbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runloop.client import BlockingClient
from runloop.errors import RefusedError
from runloop.events import ActionDecided, HostcallDelivered, RunFinished, RunStarted
from tests.e2e.test_crashes import Mortal, wait_gone_daemon
from tests.home import Home, example_paths, wait_until

JOB = ("run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan")


def newest(home: Home) -> str:
    return str(home.rlp("runs", "--json").check().ndjson[0]["run"])


def waiting(home: Home) -> str:
    (one,) = home.rlp("approvals", "--json").check().ndjson
    return str(one["approval"])


def sent_once(home: Home) -> str:
    """A run of the main job that a person said yes to; one mail is in the outbox."""
    home.play().check(5)
    home.rlp("approve", waiting(home), "--wait").check()
    run = newest(home)
    finished(home, run)
    assert len(home.outbox()) == 1
    return run


def finished(home: Home, run: str) -> RunFinished:
    def ends() -> list[RunFinished]:
        return [e.payload for e in home.events("run.finished") if e.run == run]  # type: ignore[misc]

    wait_until(ends, f"run {run} to finish")
    return ends()[0]


def begun(home: Home, run: str) -> RunStarted:
    (found,) = [e.payload for e in home.events("run.started") if e.run == run]
    assert isinstance(found, RunStarted)
    return found


def differences(home: Home, one: str, other: str, code: int = 6) -> dict[str, Any]:
    found: dict[str, Any] = home.rlp("diff", one, other, "--json").check(code).json
    return found


@pytest.mark.requirement("I5.fork.1", "I5.fork.5")
def test_a_fork_without_a_change_is_identical_asks_nobody_and_sends_nothing(home: Home) -> None:
    origin = sent_once(home)
    home.rlp("fork", origin, "--no-input").check()
    fork = newest(home)
    assert fork != origin
    assert len(home.outbox()) == 1
    assert [e.run for e in home.events("action.requested")] == [origin]
    assert [e for e in home.events("model.called") if e.run == fork] == []
    assert differences(home, origin, fork, 0)["identical"]
    assert home.rlp("diff", origin, fork).check().out.startswith("identical")
    assert "identical" in home.rlp("replay", fork).check().out

    told = home.rlp("why", fork, "--json").check().json
    assert any(hop["kind"] == "run.started" and hop["run"] == origin for hop in told["hops"])
    (mail,) = [
        e.id
        for e in home.events("hostcall.delivered")
        if e.run == fork and isinstance(e.payload, HostcallDelivered) and e.payload.op == "mail.send"
    ]
    back = home.rlp("kb", "why", str(mail), "--json").check().json
    assert any(hop["kind"] == "email.sent" for hop in back["hops"]) or any(
        hop["run"] == origin for hop in back["hops"]
    )


@pytest.mark.requirement("I5.fork.2", "I5.fork.3", "I5.fork.5")
def test_another_tone_below_the_draft_needs_another_yes_and_the_old_one_is_worth_nothing(home: Home) -> None:
    origin = sent_once(home)
    (used,) = [e.payload for e in home.events("action.decided") if isinstance(e.payload, ActionDecided)]
    parked = home.rlp("fork", f"{origin[:8]}@draft", "--set", "tone=formal", "--no-input").check(5)
    fork = newest(home)
    assert "rlp approve " in parked.err
    assert len(home.outbox()) == 1

    found = differences(home, origin, fork)
    assert found["first"]["place"] == "param tone"
    assert found["nodes"] == ["draft", "review", "send"]
    assert [one["place"] for one in found["differences"]][:2] == ["param tone", "input draft"]
    shown = home.rlp("diff", origin, fork).check(6).out
    assert "+with.tone: formal" in shown

    home.rlp("approve", used.approval).check(8)
    assert len(home.outbox()) == 1
    mine = waiting(home)
    assert mine != used.approval
    home.rlp("approve", mine, "--wait").check()
    assert finished(home, fork).outcome == "succeeded"
    assert len(home.outbox()) == 2


@pytest.mark.requirement("I5.fork.5")
def test_live_answers_do_not_send_the_same_mail_again_and_a_denied_right_is_missed(home: Home) -> None:
    origin = sent_once(home)
    home.rlp("fork", f"{origin}@send", "--live", "--no-input").check()
    assert len(home.outbox()) == 1
    home.rlp("fork", origin, "--deny", "mail", "--no-input").check(4)
    denied = newest(home)
    assert differences(home, origin, denied)["nodes"] == ["send"]
    assert len(home.outbox()) == 1
    issued = [e.payload for e in home.events("token.issued") if e.run == denied]
    assert issued
    assert all("mail" not in getattr(token, "grants", {}) for token in issued)
    # What is made of the fork goes without it as well: its record knows of no send, and would make another.
    home.rlp("retry", denied, "send", "--no-input").check(4)
    again = begun(home, newest(home)).fork
    assert again is not None
    assert again.changes["deny"] == ["mail"]
    assert home.rlp("approvals", "--json").check().ndjson == []
    assert len(home.outbox()) == 1


def test_a_parked_run_is_forked_at_any_message_and_both_ask_for_themselves(home: Home) -> None:
    home.play().check(5)
    origin = newest(home)
    frames = [
        row for row in home.rlp("trace", origin, "--json").check().ndjson if row["to"] == "agent:critic"
    ]
    home.rlp("fork", f"{origin}@#{frames[0]['event']}", "--no-input").check(5)
    fork = begun(home, newest(home)).fork
    assert fork is not None
    assert fork.at == ["review"]
    assert len({item["approval"] for item in home.rlp("approvals", "--json").check().ndjson}) == 2
    assert home.outbox() == []


@pytest.mark.requirement("I5.fork.8")
@pytest.mark.parametrize(
    ("kind", "nth"),
    [("hostcall.delivered", 2)],  # every single write: the kill loop
)
def test_a_daemon_killed_in_the_middle_of_a_fork_brings_it_to_the_same_end(
    home: Home, kind: str, nth: int
) -> None:
    origin = sent_once(home)
    home.rlp("daemon", "stop").check()
    wait_gone_daemon(home)
    mortal = Mortal(home, kind, nth, "after")
    home.rlp("fork", origin, "--no-input", "--detach", env={"RUNLOOP_NO_AUTOSTART": "1"})
    mortal.wait_dead()

    home.rlp("daemon", "start").check()
    fork = newest(home)
    assert fork != origin
    assert finished(home, fork).outcome == "succeeded"
    assert differences(home, origin, fork, 0)["identical"]
    assert "identical" in home.rlp("replay", fork).check().out
    assert len(home.outbox()) == 1


OUTER = """
version: 0
name: outer
params:
  tone: {type: string, default: friendly}
nodes:
  - id: write
    use: opening:compose_email
    with: {recipient: john, topic: Q4 plan, tone: "{{params.tone}}"}
success:
  all_of: [exists(write.out)]
"""


@pytest.mark.requirement("I5.fork.3")
def test_what_is_nested_in_a_fork_hears_what_was_nested_in_its_origin(home: Home) -> None:
    (home.path / "outer.yaml").write_text(OUTER)
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("run", "./outer.yaml", "--no-input", "--detach").check()
    wait_until(lambda: home.events("action.requested"), "the nested run to ask")
    home.rlp("approve", waiting(home), "--wait").check()
    (origin,) = [e.run for e in home.events("run.started") if not begun(home, str(e.run)).parent]
    finished(home, str(origin))

    same = str(home.rlp("fork", str(origin), "--detach").check().out.split()[-1])
    assert finished(home, same).outcome == "succeeded"
    assert differences(home, str(origin), same, 0)["identical"]
    assert len(home.outbox()) == 1

    other = str(home.rlp("fork", str(origin), "--set", "tone=formal", "--detach").check().out.split()[-1])
    wait_until(lambda: len(home.events("action.requested")) == 2, "the nested fork to ask")
    found = differences(home, str(origin), other)
    assert [one["place"] for one in found["differences"]][:4] == [
        "param tone",
        "input write",
        "param write/tone",
        "input write/draft",
    ]
    assert not [one for one in found["differences"] if "write/contacts" in one["place"]]
    part = next(str(e.run) for e in home.events("run.started") if begun(home, str(e.run)).parent)
    assert f"{str(origin)[:8]}@write" in home.rlp("fork", part).check(2).err


@pytest.mark.requirement("I5.fork.9")
def test_what_failed_is_tried_again_on_the_record_of_what_did_not(home: Home) -> None:
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("cap", "revoke", "writer", "model").check()
    home.rlp(*JOB, "--no-input").check(4)
    failed = newest(home)
    home.rlp("cap", "grant", "writer", "model", "true").check()
    home.rlp("retry", failed[:8], "--no-input").check(5)
    again = newest(home)
    origin = begun(home, again).fork
    assert origin is not None
    assert (origin.run, origin.at, origin.answers) == (failed, ["draft"], "live")
    heard = {
        e.payload.node: e.payload.recorded_in
        for e in home.events("hostcall.delivered")
        if e.run == again and isinstance(e.payload, HostcallDelivered)
    }
    assert heard["contacts"] == heard["context"] == failed
    assert heard["draft"] is None

    goes_on = home.rlp("retry", again).check(8)
    assert "rlp resume" in goes_on.err
    done = home.terminal("resume", again, answers={r"\[y/N": "y\n"})
    assert done.code == 0, done.out
    assert len(home.outbox()) == 1
    ended = home.rlp("resume", again).check(8)
    assert "rlp fork" in ended.err
    assert "succeeded" in home.rlp("retry", again).check(8).err


def test_what_was_taken_back_holds_the_forks_that_hear_of_it(home: Home) -> None:
    origin = sent_once(home)
    (john,) = [e.id for e in home.events("contact.upserted") if "john.carter@example.org" in str(e.payload)]
    home.rlp("kb", "retract", str(john), "--cascade", "--reason", "not John's address").check()
    home.rlp("fork", f"{origin}@draft", "--set", "tone=formal", "--no-input").check(1)
    assert "taken back" in home.rlp("runs", "--json").check().ndjson[0]["error"]["message"]
    assert [e.run for e in home.events("action.requested")] == [origin]
    assert len(home.outbox()) == 1


@pytest.mark.requirement("I5.fork.7")
def test_nobody_but_the_operator_makes_a_fork(home: Home) -> None:
    home.play().check(5)
    origin = newest(home)
    before = len(home.events("run.started"))
    client = BlockingClient.connect(home.path / "run" / "rmp.sock", None)
    for method in ("run.fork", "run.retry"):
        with pytest.raises(RefusedError) as caught:
            client.call(method, {"run": origin})
        assert caught.value.named_code == "operator.required"
    client.close()
    assert len(home.events("run.started")) == before


@pytest.mark.requirement("I5.fork.6")
def test_a_fork_has_no_more_than_its_origin_and_no_agent_that_may_not_run(home: Home) -> None:
    home.env["RUNLOOP__BUDGETS__RUN_TOKENS"] = "9000"
    home.play().check(5)
    origin = newest(home)
    home.rlp("daemon", "stop", "--now").check()
    home.env |= {"RUNLOOP__BUDGETS__RUN_TOKENS": "90000000", "RUNLOOP__QUOTAS__MAILS": "3"}
    had = begun(home, origin).policy["quotas"]["mailer"]
    home.rlp("fork", origin, "--no-input", "--detach").check()
    policy = begun(home, newest(home)).policy
    assert policy["budget_tokens"] == 9000
    assert policy["quotas"]["mailer"] == {**had, "mails": [3, 3]}, "what was tightened since is kept"
    assert policy["confirm_external"] is True

    home.rlp("agent", "quarantine", "critic", "--reason", "it misbehaves").check()
    refused = home.rlp("fork", f"{origin}@draft", "--no-input").check(4)
    assert "critic" in refused.err
    home.rlp("fork", origin, "--agent", "draft=critic", "--no-input").check(2)
    count = len(home.events("run.started"))
    wrong = [["--set", "ton=x"], ["--deny", "mial"], ["--agent", "nobody=writer"], ["--model", ""]]
    for words in wrong:
        assert home.rlp("fork", origin, *words, "--no-input").code in (2, 4)
    assert home.rlp("fork", f"{origin}@nothing").code == 7
    assert len(home.events("run.started")) == count
    assert json.loads(home.rlp("diff", origin, origin, "--json").check().out)["identical"]
