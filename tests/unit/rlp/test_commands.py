"""The other commands, each against the real client and a small daemon, or without any."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlp.commands import log
from rlp.commands.daemon import listener
from rlp.commands.import_ import batches
from runloop import __version__
from runloop.bundle.keyfile import dev_key
from runloop.errors import RefusedError, UnreachableError
from runloop.ladder import ladder
from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


# --- approvals ------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.user.14")
def test_what_waits_is_listed_with_the_line_to_type(daemon: DaemonTwin, rlp: Rlp) -> None:
    assert "nothing waits for you" in rlp("approvals").err
    daemon.hold()
    done = rlp("approvals")
    assert done.code == 0
    assert "waiting" in done.out
    assert "john.carter@example.org" in done.out
    assert "rlp approve ap_1234567890abcdef" in done.err
    assert rlp("approvals", "--json").lines[0]["approval"] == "ap_1234567890abcdef"


@pytest.mark.requirement("I2.user.14")
def test_approve_shows_the_exact_mail_and_binds_to_it(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.hold()
    done = rlp("approve", "ap_12345678", "--note", "fine")
    assert done.code == 0
    assert "| Hello John," in done.err
    (decision,) = daemon.decisions
    assert decision["decision"] == "approve"
    assert decision["by"] == "operator"
    assert decision["note"] == "fine"
    assert decision["action_digest"] == daemon.approvals["ap_1234567890abcdef"]["action_digest"]


@pytest.mark.requirement("I2.user.14")
def test_an_approval_can_be_refused_and_taken_back(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.hold("ap_aaaaaaaaaaaaaaaa")
    daemon.hold("ap_bbbbbbbbbbbbbbbb")
    assert rlp("deny", "ap_aaaaaa").code == 0
    assert rlp("approve", "ap_bbbbbb", "-q").code == 0
    assert json.loads(rlp("undo", "ap_bbbbbb", "--json").out)["state"] == "undone"
    assert [one["decision"] for one in daemon.decisions] == ["deny", "approve", "undo"]


@pytest.mark.requirement("C8")
def test_what_is_allowed_for_good_is_not_a_flags_word(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.hold()
    digest = daemon.approvals["ap_1234567890abcdef"]["action_digest"]
    for more in ((), ("--yes",), ("--confirm", digest)):
        done = rlp("approve", "ap_123456", "--always", *more)
        assert done.code == 4 and "typed out at a terminal" in done.err
    assert daemon.decisions == [] and "grants.give" not in {asked for asked, _, _ in daemon.asked}


def test_a_second_decision_is_a_conflict(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.hold()
    assert rlp("deny", "ap_123456").code == 0
    done = rlp("approve", "ap_123456")
    assert done.code == 8
    assert "is denied already" in done.err


def test_an_unknown_approval_is_not_found(daemon: DaemonTwin, rlp: Rlp) -> None:
    done = rlp("approve", "ap_nothing")
    assert (done.code, "rlp approvals" in done.err) == (7, True)


def test_without_the_credential_we_are_no_operator(daemon: DaemonTwin, rlp: Rlp, home: Path) -> None:
    daemon.hold()
    (home / "keys" / "operator.key").unlink()
    done = rlp("approve", "ap_123456")
    assert done.code == 4, "the bus refuses a decision that no operator publishes"
    assert daemon.decisions == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_credential_that_others_can_read_is_not_used(
    daemon: DaemonTwin, rlp: Rlp, home: Path, mode: int
) -> None:
    (home / "keys" / "operator.key").chmod(mode)
    done = rlp("runs")
    assert done.code == 4
    assert "is open to others" in done.err


def test_a_credential_behind_a_link_or_of_another_length_is_not_used(
    daemon: DaemonTwin, rlp: Rlp, home: Path
) -> None:
    key = home / "keys" / "operator.key"
    key.write_bytes(b"short")
    assert "has 5 bytes, not 32" in rlp("runs").err
    key.write_bytes(daemon.credential)
    assert rlp("runs").code == 0
    key.rename(key.with_name("real"))
    key.symlink_to(key.with_name("real"))
    assert rlp("runs").code == 4


# --- runs, trace, replay ---------------------------------------------------------------------------


@pytest.mark.requirement("I2.user.10")
def test_runs_are_a_table_and_json_lines(daemon: DaemonTwin, rlp: Rlp) -> None:
    assert "no runs yet" in rlp("runs").err
    row = {
        "run": RUN,
        "opening": "compose_email",
        "state": "succeeded",
        "outcome": "succeeded",
        "started_ms": 1_750_000_000_000,
        "finished_ms": 1_750_000_012_000,
    }
    daemon.methods["run.list"] = lambda limit: {"runs": [row] * limit}
    done = rlp("runs", "-n", "2")
    assert done.out.count("12.0 s") == 2
    assert rlp("runs", "-n1", "--json").lines == [row]


def test_a_run_can_be_cancelled(daemon: DaemonTwin, rlp: Rlp) -> None:
    assert rlp("cancel", RUN[:8], "--reason", "enough").code == 0
    assert daemon.asked[-1][:2] == ("run.cancel", {"run": RUN[:8], "reason": "enough"})
    assert rlp("cancel", RUN[:8], "--json").lines == [{"run": RUN}]


TRACE: list[tuple[str, dict[str, Any], tuple[str, str, str]]] = [
    (
        "message.sent",
        {
            "sender": "daemon",
            "receiver": "agent:writer",
            "topic": "agent/writer",
            "type": "intent.executor.agent.request.v1",
            "schema_id": 4000,
            "msg_id": 1,
            "size": 2_048,
            "node": "draft",
            "attempt": 1,
        },
        ("daemon", "agent:writer", "intent.executor.agent.request.v1 on agent/writer"),
    ),
    (
        "hostcall.delivered",
        {"node": "draft", "op": "kb.search", "ok": True, "request_bytes": 100, "response_bytes": 900},
        ("gate", "draft", "kb.search answered"),
    ),
    (
        "hostcall.admitted",
        {"node": "send", "op": "mail.send", "effect": "send", "request_bytes": 10},
        ("send", "gate", "mail.send admitted (send)"),
    ),
    (
        "model.called",
        {
            "provider": "rules",
            "model": "template",
            "input_tokens": 3,
            "output_tokens": 4,
            "estimated": True,
            "cost_micro_usd": 0,
        },
        ("gate", "rules", "template, 3+4 tokens, estimated"),
    ),
    (
        "action.decided",
        {"principal": "operator:1000", "node": "send", "decision": "approved"},
        ("person", "send", "approved"),
    ),
    (
        "cap.audit",
        {
            "agent": "writer",
            "capability": "mail",
            "op": "mail.send",
            "decision": "denied",
            "reason": "not granted",
        },
        ("gate", "writer", "mail denied for mail.send: not granted"),
    ),
    ("action.claimed", {"approval": "ap_1"}, ("gate", "", "the one use of ap_1 is taken")),
    (
        "email.sent",
        {"provider": "outbox", "recipients": ["a@b.c"], "subject": "s"},
        ("gate", "outbox", "mail to a@b.c: s"),
    ),
    (
        "artifact.created",
        {"node": "draft", "name": "draft.txt", "size": 9},
        ("draft", "ledger", "artifact draft.txt"),
    ),
    ("run.started", {"principal": "operator:1", "opening": "o"}, ("operator:1", "daemon", "runs o")),
    ("run.finished", {"outcome": "failed", "clause": None}, ("daemon", "", "run failed")),
    ("node.scheduled", {"node": "n", "attempt": 2}, ("engine", "n", "attempt 2")),
    (
        "node.finished",
        {"node": "n", "status": "failed", "calls": 1, "fuel": 2, "error": {"message": "no"}},
        ("n", "engine", "failed, 1 calls, 2 fuel: no"),
    ),
    ("node.skipped", {"node": "n", "reason": "guard"}, ("engine", "n", "skipped: guard")),
    (
        "action.requested",
        {"node": "n", "op": "mail.send", "approval": "ap_1", "action": {}},
        ("n", "person", "asks: mail.send (ap_1)"),
    ),
    (
        "memory.updated",
        {"node": "n", "key": "k", "entry_version": 1},
        ("daemon", "n", "memory.updated node n, key k, entry_version 1"),
    ),
]


@pytest.mark.requirement("I2.user.10")
def test_every_crossing_says_who_to_whom_and_what() -> None:
    events = [
        {"id": n, "ts_ms": 1_000 + n, "kind": kind, "run": RUN, "actor": "daemon", "payload": payload}
        for n, (kind, payload, _) in enumerate(TRACE)
    ]
    rows = list(ladder(events))
    assert [(row["from"], row["to"], row["what"]) for row in rows] == [wanted for _, _, wanted in TRACE]
    assert rows[0]["bytes"] == 2_048
    assert rows[1]["bytes"] == 1_000
    assert [row["at_ms"] for row in rows] == list(range(len(TRACE)))


def test_the_ladder_leaves_timers_out_unless_asked(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.begin()
    daemon.emit("timer.set", {"timer": "run:timeout", "after_ms": 5, "due_ms": 6})
    daemon.emit(*TRACE[0][:2])
    done = rlp("trace", RUN[:8])
    assert done.code == 0
    assert f"run {RUN}" in done.out
    assert "2.0 KiB" in done.out
    assert "timer" not in done.out
    assert "1 messages" in done.err
    assert "timer.set" in rlp("trace", RUN[:8], "--all").out
    assert len(rlp("trace", RUN[:8], "--json").lines) == len(daemon.events) - 1
    assert rlp("trace", "ffffffff").code == 7


COVERAGE = {"recorded": 5, "reexecuted": 5, "substituted": 0, "not_covered": 0}


@pytest.mark.requirement("I2.replay.1")
def test_an_identical_replay_says_so_with_its_coverage(daemon: DaemonTwin, rlp: Rlp) -> None:
    report = {"run": RUN, "identical": True, "coverage": COVERAGE, "divergence": None}
    daemon.methods["run.replay"] = lambda run: report
    done = rlp("replay", RUN[:8])
    assert done.code == 0
    assert done.out.splitlines()[:2] == [
        "identical",
        "  5 recorded / 5 re-executed / 0 substituted / 0 not covered",
    ]
    assert rlp("replay", RUN, "--json").lines == [report]


@pytest.mark.requirement("I2.replay.2")
def test_a_divergence_shows_both_hashes_and_what_is_not_covered_is_not_identical(
    daemon: DaemonTwin, rlp: Rlp
) -> None:
    divergence = {"code": "replay.result", "where": "node draft", "expected": "aa" * 32, "actual": "bb" * 32}
    report = {"run": RUN, "identical": False, "coverage": COVERAGE, "divergence": divergence}
    daemon.methods["run.replay"] = lambda run: report
    done = rlp("replay", RUN)
    assert done.code == 6
    assert "aa" * 32 in done.out
    assert "bb" * 32 in done.out
    report["divergence"] = None
    done = rlp("replay", RUN)
    assert done.code == 6
    assert done.out.startswith("not fully covered")


# --- knowledge and capabilities ----------------------------------------------------------------------


@pytest.mark.requirement("I2.user.12")
def test_a_query_is_a_table_with_the_columns_it_selected(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["kb.query"] = lambda sql, params, limit: {
        "columns": ["b\x1b[31m", "a"],
        "rows": [{"b\x1b[31m": 1, "a": params[0]}],
        "truncated": False,
    }
    done = rlp("kb", "query", "SELECT 1, ?", "-p", "x")
    assert done.code == 0
    assert done.out.splitlines() == ["b\\x1b[31m  a", "1          x"]


@pytest.mark.requirement("I2.user.12")
def test_a_search_shows_kinds_and_refuses_unknown_ones(daemon: DaemonTwin, rlp: Rlp) -> None:
    item = {"kind": "mail", "id": "1", "title": "Q4", "snippet": "the \x1b[2Jplan", "score": 1.0, "event": 7}
    daemon.methods["kb.search"] = lambda query, k, kinds: {"items": [item] if query == "q4 plan" else []}
    assert "the \\x1b[2Jplan" in rlp("kb", "search", "q4", "plan").out
    assert "rlp import" in rlp("kb", "search", "else").err
    assert rlp("kb", "search", "x", "--kind", "mall").code == 2


@pytest.mark.requirement("I4.search.1")
def test_a_search_says_who_found_it_and_how_far_it_is_to_be_trusted(daemon: DaemonTwin, rlp: Rlp) -> None:
    item = {
        "kind": "note", "id": "1", "title": "Q4", "snippet": "the plan", "score": 1.0, "event": 7,
        "label": "import:document", "source": "", "found_by": {"lexical-1": 2, "words": 1},
    }  # fmt: skip
    daemon.methods["kb.search"] = lambda query, k, kinds: {"items": [item], "embedders": ["lexical-1"]}
    shown = rlp("kb", "search", "plan").out
    assert "import:document" in shown and "words 1, lexical-1 2" in shown and "semantic" not in shown
    assert json.loads(rlp("kb", "search", "plan", "--json").out) == {
        "items": [item], "embedders": ["lexical-1"]
    }  # fmt: skip


RETRACTED = {
    "retraction": 12, "source": 7, "facts": [7, 9], "runs": ["0b7c1d2e-0000-4000-8000-000000000001"],
    "approvals": ["ap_1"], "sent": [11], "unlinked": ["5b7c1d2e-0000-4000-8000-000000000001"], "reached": 9,
}  # fmt: skip


@pytest.mark.requirement("I4.retract.1")
def test_a_retraction_tells_what_is_taken_back_held_and_gone(daemon: DaemonTwin, rlp: Rlp) -> None:
    asked: list[Any] = []
    daemon.methods["kb.retract"] = lambda **params: asked.append(params) or RETRACTED
    done = rlp("kb", "retract", "#7", "--cascade", "--reason", "a lie")
    assert done.code == 0
    assert asked == [{"event": 7, "cascade": True, "reason": "a lie", "preview": False}]
    assert "#7 is taken back" in done.out and "with #9" in done.out
    assert "run held: 0b7c1d2e" in done.out and "question voided: ap_1" in done.out
    assert "mail #11" in done.err and "5b7c1d2e read the knowledge by SQL" in done.err
    assert "--undo 12" in done.err


def test_a_dry_run_of_a_retraction_says_that_nothing_was_stated(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["kb.retract"] = lambda **params: {**RETRACTED, "retraction": None}
    done = rlp("kb", "retract", "7", "--dry-run")
    assert "would be taken back" in done.out and "nothing was stated" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("7",),
        ("seven", "--reason", "x"),
        ("7", "--undo", "--cascade", "--reason", "x"),
        ("7", "--undo", "--dry-run"),
        ("-7", "--reason", "x"),
    ],
)
def test_a_retraction_that_is_not_clear_is_refused_here(daemon: DaemonTwin, rlp: Rlp, words: Any) -> None:
    assert rlp("kb", "retract", *words).code == 2


def test_a_retraction_is_undone(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["kb.unretract"] = lambda retraction, reason: {"restored": [20], "source": retraction - 5}
    assert "#7 and what came of it count again" in rlp("kb", "retract", "12", "--undo", "--reason", "ok").out


@pytest.mark.requirement("I2.user.12")
def test_why_shows_every_hop_and_says_where_the_chain_is_severed(daemon: DaemonTwin, rlp: Rlp) -> None:
    hop = {
        "event": 9,
        "kind": "email.sent",
        "ts_ms": 1_750_000_000_000,
        "actor": "daemon",
        "depth": 1,
        "summary": "mail to john",
        "node": "send",
        "digests": {"content": "ab" * 32},
    }
    found = {
        "hops": [hop],
        "grants": [{"token": "cd" * 16, "holder": "mailer", "parent": "ef" * 16, "event": 3}],
        "severed": [{"event": 4, "missing": "event 2", "reason": "event 2 is not in the ledger"}],
        "also": [11],
        "truncated": True,
    }
    daemon.methods["kb.why"] = lambda ref, impact: found
    done = rlp("kb", "why", "9", "-v")
    assert "  #9  email.sent  mail to john" in done.out
    assert "right: token cdcdcdcdcdcdcdcd of mailer, narrowed from efefefefefefefef (#3)" in done.out
    assert "severed at #4: event 2 is not in the ledger" in done.err
    assert "content " + "ab" * 32 in done.err
    assert rlp("why", "#9", "--json").lines == [found]


def test_an_explanation_that_crosses_runs_says_which_fact_is_of_which(daemon: DaemonTwin, rlp: Rlp) -> None:
    hop = {"event": 9, "kind": "k", "ts_ms": 1, "actor": "daemon", "summary": "s", "node": "send"}
    mine, theirs = {**hop, "depth": 0, "run": RUN}, {**hop, "depth": 1, "run": "f" * 36}
    daemon.methods["kb.why"] = lambda ref, impact: {"hops": [mine, theirs]}
    done = rlp("kb", "why", "9")
    assert f"by daemon, node send, run {RUN[:8]}" in done.out
    assert "by daemon, node send, run ffffffff" in done.out
    daemon.methods["kb.why"] = lambda ref, impact: {"hops": [mine]}
    assert "run" not in rlp("kb", "why", "9").out


def test_on_a_terminal_of_80_columns_runs_are_a_table(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    row = {
        "run": RUN,
        "opening": "compose_email",
        "principal": "operator:1000",
        "state": "failed",
        "started_ms": 1_750_000_000_000,
        "finished_ms": 1_750_000_012_000,
        "error": {"message": "contacts: no contact matches 'john'; import it, or give an address"},
    }
    daemon.methods["run.list"] = lambda limit: {"runs": [row, row]}
    shown = terminal("runs")
    assert shown.end() == 0
    lines = shown.seen.splitlines()
    assert lines[0].split() == ["run", "opening", "by", "state", "started", "took", "error"]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.requirement("I2.user.13")
def test_capabilities_are_listed_granted_and_revoked(daemon: DaemonTwin, rlp: Rlp) -> None:
    shown = {
        "agent": "mailer",
        "asked": {"mail": True, "time": True},
        "effective": {"time": True},
        "warnings": ["fs_ro is wider than the bundle asks for; ignored"],
    }
    daemon.methods["cap.list"] = lambda agent: {
        "agents": [shown, {"agent": "none", "asked": {}, "effective": {}}]
    }
    done = rlp("cap", "list")
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        ["mailer", "mail", "false", "override"],
        ["mailer", "time", "true", "policy.caps"],
        ["none", "-", "nothing", "-"],
    ]
    assert "fs_ro is wider" in done.err
    assert rlp("cap", "list", "--json").lines[0] == shown
    daemon.methods["cap.grant"] = lambda agent, capability, value: {"value": value, "warnings": ["w"]}
    assert rlp("cap", "grant", "mailer", "mail", '["*@example.org"]', "--json").lines[0]["value"] == [
        "*@example.org"
    ]
    done = rlp("cap", "grant", "mailer", "mail")
    assert "mailer now has mail" in done.err
    assert rlp("cap", "grant", "mailer", "mail", "{").code == 2
    daemon.methods["cap.revoke"] = lambda agent, capability, token: {"token": token}
    assert "revoked mail from mailer" in rlp("cap", "revoke", "mailer", "mail").err
    assert rlp("cap", "revoke", "--token", "abc", "--json").lines == [{"token": "abc"}]
    assert rlp("cap", "revoke", "mailer").code == 2


def test_files_become_payloads_and_a_bad_one_is_told(daemon: DaemonTwin, rlp: Rlp, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def take(payloads: list[dict[str, Any]]) -> dict[str, int]:
        seen.extend(payloads)
        return {"appended": len(payloads), "skipped": 0, "retracted": 0}

    gone = {"kind": "contact", "ref": "c", "origin": str(tmp_path / "x.vcf"), "event": 7, "title": "Ann"}
    daemon.methods["kb.import"] = take
    daemon.methods["kb.imported"] = lambda path, after, limit: {
        "items": [gone] if path == str(tmp_path) else [],
        "truncated": False,
    }
    paths = [str(EXAMPLES / name) for name in ("contacts.vcf", "notes", "mail")]
    done = rlp("import", *paths)
    assert (done.code, done.err) == (0, "")
    assert done.out == "read 4 contacts, 4 mails, 3 notes: 11 new, 0 known already\n"
    assert {item["kind"] for item in seen} == {"contact.upserted", "document.imported"}
    assert {Path(item["origin"]).is_relative_to(EXAMPLES) for item in seen} == {True}
    (tmp_path / "bad.vcf").write_text("BEGIN:VCARD\nVERSION:4.0\nNONSENSE\n")
    done = rlp("import", str(tmp_path / "bad.vcf"), "--json")
    assert done.code == 1
    assert done.lines[0]["problems"]
    assert rlp("import", str(tmp_path / "none")).code == 7
    assert rlp("import", str(tmp_path / "bad.vcf"), "--column", "email").code == 2
    (tmp_path / "bad.vcf").unlink()
    done = rlp("import", str(tmp_path))
    assert f"no longer there: contact 'Ann' (#7), from {tmp_path / 'x.vcf'}" in done.err
    assert rlp("import", str(tmp_path), "--json").lines[0]["vanished"] == [gone]


def test_a_promise_is_resolved_with_json_or_with_a_text(daemon: DaemonTwin, rlp: Rlp) -> None:
    said: list[Any] = []

    def resolve(promise: str, value: Any) -> dict[str, Any]:
        said.append(value)
        return {"promise": promise, "run": None}

    daemon.methods["promise.resolve"] = resolve
    for words in (['{"go":', "true}"], ["--text", "draft", "a"], ["null"], ["-t", "null"]):
        assert rlp("promise", "resolve", "pr_1", *words).code == 0
    assert said == [{"go": True}, "draft a", None, "null"]
    for words in ("yes", "NaN", "{"):
        done = rlp("promise", "resolve", "pr_1", words)
        assert (done.code, "is not JSON" in done.err) == (2, True)
    assert len(said) == 4


def test_no_request_grows_beyond_its_bounds() -> None:
    items = [{"kind": "k", "payload": {"text": "x" * 300_000}} for _ in range(7)]
    assert [len(batch) for batch in batches(items)] == [3, 3, 1]
    assert [len(batch) for batch in batches([{"kind": "k", "payload": {}}] * 450)] == [200, 200, 50]
    assert [len(batch) for batch in batches([{"kind": "k", "payload": {"text": "x" * 3_000_000}}] * 2)] == [
        1,
        1,
    ]


# --- without a daemon -----------------------------------------------------------------------------


@pytest.mark.requirement("I2.user.11")
def test_why_explains_a_prompt_by_its_rule(rlp: Rlp, home: Path) -> None:
    done = rlp("why", "write", "a", "mail", "to", "john", "about", "the", "Q4", "plan")
    assert done.code == 0
    assert "route     opening compose_email" in done.out
    assert "param     recipient = john" in done.out
    again = rlp("why", "write a mail to john about the Q4 plan", "--json")
    assert again.lines[0]["target"] == "compose_email"
    assert not (home / "log").exists()


@pytest.mark.requirement("I6.router.6")
def test_a_wish_means_nothing_that_lies_in_the_folder_one_stands_in(
    rlp: Rlp, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "openings").mkdir()
    (tmp_path / "openings" / "planted.yaml").write_text(
        "version: 0\nname: planted\ngoals: ['water the {plant}']\nparams: {plant: {}}\n"
        "nodes: [{id: a, use: 'agent:critic'}]\n"
    )
    assert rlp("why", "water the roses", "--json").lines[0]["target"] is None
    assert rlp("why", "planted", "--json").lines[0]["kind"] != "opening"
    assert "planted.yaml" in rlp("plan", "planted", "-p", "plant=rose").err, "by its name it is found"


def test_the_kept_listing_follows_the_files_and_survives_nonsense(rlp: Rlp, home: Path) -> None:
    (home / "openings").mkdir(parents=True)
    mine = home / "openings" / "mine.yaml"
    mine.write_text(
        "version: 0\nname: mine\ngoals: ['water the {plant}']\nparams: {plant: {}}\n"
        "nodes: [{id: a, use: 'agent:b'}]\n"
    )
    assert rlp("why", "water the roses", "--json").lines[0]["target"] == "mine"
    assert rlp("why", "water the roses", "--json").lines[0]["target"] == "mine"
    mine.write_text("version: 0\nname: [\n")
    assert rlp("why", "water the roses", "--json").lines[0]["target"] is None
    for nonsense in ("[]", "{", '{"a": 1}', '{"a": ["x", [1], []]}'):
        (home / "cache" / "openings.json").write_text(nonsense)
        assert rlp("why", "write a mail to john about x", "--json").lines[0]["target"] == "compose_email"


@pytest.mark.requirement("I6.router.6")
@pytest.mark.parametrize(
    ("text", "code"),
    [("ls -la", 10), ("write a mail to john about x", 11), ("hello there friend", 11), ("rm -rf /", 13)],
)
def test_route_answers_by_its_exit_code(rlp: Rlp, home: Path, text: str, code: int) -> None:
    assert rlp("route", text).code == code
    assert rlp("route", text, "--json").lines[0]["kind"] in ("shell", "opening", "agent", "denied")


@pytest.mark.requirement("I2.user.9")
def test_plan_shows_the_graph_and_what_to_type(rlp: Rlp, home: Path) -> None:
    done = rlp("plan", "compose_email")
    assert done.code == 0
    assert "agent:mailer" in done.out
    assert "rlp run compose_email -p recipient=... -p topic=..." in done.err
    found = rlp("plan", "compose_email", "-p", "recipient=john", "-p", "topic=x", "--json").lines[0]
    assert found["given"]["tone"] == "friendly"
    assert rlp("plan", "compose_email", "-p", "recipient=john").code == 2


@pytest.mark.requirement("I2.user.9")
def test_plan_names_every_mistake_with_its_place(rlp: Rlp, home: Path, tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text(
        "version: 0\nname: o\nnodes:\n  - {id: a, use: 'agent:nobody'}\n  - {id: b, use: 'agent:critic'}\n"
        "edges:\n  - {from: a.out, to: b.nowhere}\n"
    )
    done = rlp("plan", str(tmp_path / "o.yaml"))
    assert done.code == 2
    assert "o.yaml:4:" in done.err
    assert "o.yaml:7:" in done.err


def test_list_shows_openings_and_agents(rlp: Rlp, home: Path) -> None:
    done = rlp("list")
    assert done.code == 0
    assert "compose_email" in done.out
    assert "mailer" in done.out


def test_config_shows_values_with_their_origins(
    rlp: Rlp, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.toml").write_text("[mail]\nfrom = 'me@example.org'\n")
    monkeypatch.setenv("RUNLOOP__LOGGING__LEVEL", "debug")
    rows = {row["key"]: row for row in rlp("config", "show", "--set", "kb.synchronous=EXTRA", "--json").lines}
    assert (rows["mail.from"]["origin"], rows["mail.from"]["where"]) == ("user", f"{home}/config.toml:2")
    assert rows["logging.level"]["origin"] == "environment"
    assert rows["kb.synchronous"]["origin"] == "flag"
    assert rows["quotas.calls"]["origin"] == "default"
    assert rlp("config", "get", "mail.from").out == "me@example.org\n"
    assert rlp("config", "get", "security.allow_unsigned_agents").out == "false\n"
    assert rlp("config", "get", "mail.from", "--json").lines[0]["value"] == "me@example.org"
    done = rlp("config", "get", "mail.frm")
    assert (done.code, "did you mean 'mail.from'?" in done.err) == (7, True)
    assert str(home / "outbox") in rlp("config", "path").out
    assert rlp("config", "path", "--json").lines[0]["home"] == str(home)
    assert rlp("config", "check").code == 0
    assert rlp("config", "check", "--json").lines == [{"ok": True, "warnings": []}]
    assert rlp("config", "show", "--set", "nothing").code == 2
    (home / "config.toml").write_text("[mial]\nfrom = 1\n")
    assert rlp("config", "check").code == 2


def test_the_log_is_read_from_its_end_and_filtered(rlp: Rlp, home: Path) -> None:
    assert "no log yet" in rlp("logs").err
    (home / "log").mkdir()
    file = home / "log" / "runloopd.log"
    lines = [
        json.dumps({"event": f"e{n}", "agent": "writer" if n % 2 else "mailer", "run": RUN})
        for n in range(5_000)
    ]
    file.write_text("plain \x1b[31m words\n" + "\n".join(lines) + "\n")
    assert [json.loads(line)["event"] for line in rlp("logs", "-n", "3").out.splitlines()] == [
        "e4997",
        "e4998",
        "e4999",
    ]
    assert [line["event"] for line in rlp("logs", "-n2", "--agent", "mailer", "--json").lines] == [
        "e4996",
        "e4998",
    ]
    assert len(rlp("logs", "--correlation", RUN[:8], "-n", "2").out.splitlines()) == 2
    assert rlp("logs", "--grep", "words").out == "plain \\x1b[31m words\n"
    assert rlp("logs", "--grep", "words", "--json").lines == [{"text": "plain \x1b[31m words"}]
    assert "no such lines" in rlp("logs", "--correlation", "ffff").err


def test_lines_that_cross_a_chunk_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CHUNK", 7)
    (tmp_path / "f").write_text("one\ntwo hundred\n\nthree\nfour")
    assert list(log.backwards(tmp_path / "f")) == ["four", "three", "two hundred", "one"]


@pytest.mark.requirement("I2.user.16")
def test_doctor_looks_at_everything_and_changes_nothing(rlp: Rlp, home: Path) -> None:
    done = rlp("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.lines}
    assert set(states) == {
        "python", "config", "home", "keys", "disk", "sqlite", "wasm", "shipped", "ledger", "daemon",
        "sockets", "sandbox", "programs", "limits", "trust", "unsigned", "agents",
    }  # fmt: skip
    assert states["sqlite"] == states["home"] == states["python"] == "ok"
    assert list(home.iterdir()) == []


@pytest.mark.requirement("I2.user.16")
def test_doctor_says_what_is_bad_and_how_to_mend_it(rlp: Rlp, home: Path) -> None:
    home.chmod(0o777)
    (home / "keys").mkdir(mode=0o755)
    (home / "config.toml").write_text("[a]\nb = 1\n")
    done = rlp("doctor")
    assert done.code == 1
    assert f"chmod go-w {home}" in done.out
    assert f"chmod 700 {home / 'keys'}" in done.out
    assert "unknown key 'a.b'" in done.out


def test_doctor_takes_an_authors_signing_key_for_what_it_is(rlp: Rlp, home: Path) -> None:
    (home / "keys").mkdir(mode=0o700)
    dev_key(home / "keys")
    row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "keys")
    assert row["state"] == "ok"
    (home / "keys" / "dev-signing.key").write_text("no key")
    row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "keys")
    assert row["state"] == "bad"


def test_doctor_tells_which_layers_hold_a_guest(daemon: DaemonTwin, rlp: Rlp) -> None:
    def layers(**found: bool) -> dict[str, Any]:
        daemon.methods["status"] = lambda: {"version": __version__, "pid": 1, "layers": found}
        return next(row for row in rlp("doctor", "--json").lines if row["name"] == "sandbox")

    held = layers(seccomp=True, rlimits=True)
    assert (held["state"], held["found"]) == ("ok", "2 layers hold: seccomp, rlimits")
    thin = layers(seccomp=True, network_namespace=False)
    assert (thin["state"], thin["found"]) == ("warning", "1 of 2 layers hold; not network_namespace")


@pytest.mark.requirement("I6.programs.2")
def test_doctor_names_each_layer_that_holds_programs_and_what_is_missing(
    daemon: DaemonTwin, rlp: Rlp
) -> None:
    def programs(*found: tuple[str, bool]) -> dict[str, Any]:
        rows = [{"name": name, "holds": holds, "found": "version 7"} for name, holds in found]
        status = {"version": __version__, "pid": 1, "layers": {}, "programs": rows}
        daemon.methods["status"] = lambda: status
        return next(row for row in rlp("doctor", "--json").lines if row["name"] == "programs")

    held = programs(("bubblewrap", True), ("Landlock", True))
    assert (held["state"], held["found"]) == ("ok", "held by bubblewrap (version 7), Landlock (version 7)")
    thin = programs(("bubblewrap", True), ("Landlock", False))
    assert (thin["state"], thin["found"]) == ("warning", "no program is run: Landlock: version 7")
    assert "install bubblewrap" in thin["hint"]


@pytest.mark.requirement("I8.first.2")
def test_doctor_says_which_agent_could_not_be_made_ready_and_why(daemon: DaemonTwin, rlp: Rlp) -> None:
    status = {"version": __version__, "pid": 1, "layers": {}, "agents_unprepared": {"sorter": "too long"}}
    daemon.methods["status"] = lambda: status
    row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "agents")
    assert row["state"] == "bad"
    assert row["found"] == "1 could not be made ready to run; sorter: too long"


def test_doctor_sees_the_daemon_that_runs(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon_row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "daemon")
    assert daemon_row["state"] == "ok"
    assert "pid 1" in daemon_row["found"]


# --- the daemon -----------------------------------------------------------------------------------


def test_status_tells_and_exits_3_when_there_is_none(rlp: Rlp, home: Path) -> None:
    done = rlp("daemon", "status")
    assert (done.code, "rlp daemon start" in done.err) == (3, True)
    assert rlp("daemon", "stop").code == 0
    assert not (home / "run").exists()


def test_start_status_and_stop_of_one_that_runs(
    daemon: DaemonTwin, rlp: Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The twin serves from this very process, which goes on.
    monkeypatch.setattr("rlp.commands.daemon.lives", lambda pid: False)
    assert "already runs" in rlp("daemon", "start").err
    assert rlp("daemon", "start", "--set", "logging.level=debug").code == 2
    assert rlp("daemon", "start", "--set", "logging.level=loud").code == 2
    assert "started     2025" in rlp("daemon", "status").out
    assert rlp("daemon", "status", "--json").lines[0]["pid"] == 1
    assert "has stopped" in rlp("daemon", "stop").err
    assert ("daemon.stop", {"drain": True}, "operator") in daemon.asked


@pytest.mark.requirement("S4")
def test_another_build_is_refused_with_the_line_to_type(home: Path, rlp: Rlp) -> None:
    """attacks.md S4."""
    with DaemonTwin(home, build="9.9.9"):
        done = rlp("runs")
        assert done.code == 4
        assert "9.9.9" in done.err
        assert "rlp daemon stop" in done.err


def test_the_listener_of_a_socket_is_known_from_the_kernel(daemon: DaemonTwin, home: Path) -> None:
    assert listener(daemon.socket) == os.getpid()
    with pytest.raises(UnreachableError):
        listener(home / "nothing")


def test_a_daemon_that_cannot_start_says_why(rlp: Rlp, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runloop import spawn

    fails = [sys.executable, "-c", "import sys; sys.exit('runloopd: the ledger is locked')"]
    monkeypatch.setattr(spawn, "command_line", lambda paths: fails)
    monkeypatch.setattr(spawn, "GRACE_S", 0.05)
    done = rlp("runs")
    assert done.code == 3
    assert "ended with code 1: runloopd: the ledger is locked" in done.err
    assert "rlp logs" in done.err
    assert oct((home / "log" / "runloopd.log").stat().st_mode)[-3:] == "600"


def test_a_log_behind_a_link_is_not_written_to(rlp: Rlp, home: Path, tmp_path: Path) -> None:
    (home / "log").mkdir()
    (tmp_path / "victim").write_text("")
    (home / "log" / "runloopd.log").symlink_to(tmp_path / "victim")
    assert rlp("runs").code == 1
    assert (tmp_path / "victim").read_text() == ""


# --- the border -----------------------------------------------------------------------------------


def test_an_error_of_the_daemon_keeps_its_family(daemon: DaemonTwin, rlp: Rlp) -> None:
    def refuse(**_: Any) -> Any:
        raise RefusedError("not for you \x1b[2J", hint="ask the owner", code="operator.required")

    daemon.methods["run.list"] = refuse
    done = rlp("runs", "--json")
    assert done.code == 4
    assert done.err == "rlp: not for you \\x1b[2J; ask the owner\n"
    assert done.lines[0]["error"]["code"] == "operator.required"


def test_a_fault_of_ours_is_one_line_and_with_verbose_the_whole_story(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["run.list"] = lambda limit: {"nonsense": True}
    done = rlp("runs")
    assert done.code == 1
    assert done.err.startswith("rlp: internal error: KeyError")
    assert "Traceback" in rlp("runs", "-v").err


def test_help_of_a_command_goes_to_stdout(rlp: Rlp, home: Path) -> None:
    assert rlp("kb", "query", "--help").out.startswith("Usage: rlp kb query")
    assert rlp("nothing").code == 2


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    import subprocess

    command = f"{sys.executable} -m rlp list --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
