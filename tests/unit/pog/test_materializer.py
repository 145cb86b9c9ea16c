"""The views: a fold that can be thrown away."""

from __future__ import annotations

import sqlite3

import pytest

from pog.connection import VIEWS
from pog.errors import LedgerVersionError, ViewsError
from pog.folds import TABLES, Folds
from pog.maintain import verify
from runloop.digest import blob_digest
from runloop.events import (
    KINDS,
    ActionClaimed,
    AgentQuarantined,
    AgentReleased,
    AgentTransition,
    CapAudit,
    HostcallAdmitted,
    MemoryUpdated,
    MessageSent,
    NodeCancelled,
    NodeSkipped,
    PolicyChanged,
    QuotaExceeded,
    QuotaWarned,
    RunCancelRequested,
    RunResumed,
    TokenRevoked,
)

from . import facts
from .conftest import Store

BLOBS = [b"{}", b"report", facts.MAIL, b"found"]


def whole_history() -> list[object]:
    """One run with everything in it, and knowledge around it."""
    admitted = HostcallAdmitted(
        node="send",
        attempt=1,
        call=0,
        op="mail.send",
        effect="send",
        key="k",
        args_digest=facts.ZERO,
        args_blob=blob_digest(b"{}"),
        request_bytes=5,
        fuel=1,
    )
    sent = MessageSent(
        sender="daemon",
        receiver="agent:writer",
        topic="agent/writer",
        type="intent.executor.agent.request.v1",
        schema_id=4000,
        msg_id=77,
        size=300,
        body_digest=facts.ZERO,
        node="draft",
        attempt=1,
    )
    audit = CapAudit(
        agent="writer",
        capability="mail",
        op="mail.send",
        target="john",
        args_digest=facts.ZERO,
        decision="denied",
        reason="not granted",
    )
    change = PolicyChanged(
        agent="writer",
        change="grant",
        capability="model",
        before={},
        after={"model": True},
        principal="operator:1",
    )
    moved = AgentTransition(agent="writer", instance="i1", before="DEFINED", after="SPAWNED", trigger="spawn")
    run = facts.RUN
    quota = {"agent": "writer", "resource": "tokens", "limit": 10, "used": 9}
    return [
        facts.draft(
            facts.contact("c1", "John Doe", "john.doe@example.com", "jd@home.example", nicknames=["johnny"])
        ),
        facts.draft(facts.contact("c2", "Ann", "ann@example.org")),
        facts.draft(facts.note()),
        facts.draft(
            facts.note("d2", "Re: plan", "Marketing will be late", type="mail", people=["ann@example.org"])
        ),
        facts.draft(facts.contact("c1", "John Q. Doe", "john.doe@example.com")),
        facts.draft(facts.token("t-run", None), run=run),
        facts.draft(facts.token(), run=run),
        facts.draft(facts.run_started(), run=run),
        facts.draft(facts.scheduled(), run=run),
        facts.draft(moved, run=run),
        facts.draft(sent, run=run),
        facts.draft(facts.delivered(result=b"found"), run=run),
        facts.draft(facts.model_called(), run=run),
        facts.draft(facts.finished(status="failed", error={"code": "x", "message": "bad"}), run=run),
        facts.draft(facts.scheduled(attempt=2), run=run),
        facts.draft(facts.artifact(), run=run),
        facts.draft(facts.finished(attempt=2, output_digest="d" * 64, output={"ports": {}}), run=run),
        facts.draft(facts.scheduled("send"), run=run),
        facts.draft(facts.action_requested(), run=run),
        facts.draft(facts.action_decided(), run=run),
        facts.draft(ActionClaimed(approval="ap-1", action_digest="a" * 64), run=run),
        facts.draft(admitted, run=run),
        facts.draft(facts.delivered("send", op="mail.send", effect="send"), run=run),
        facts.draft(facts.email_sent(), run=run),
        facts.draft(facts.finished("send"), run=run),
        facts.draft(NodeSkipped(node="late", reason="guard"), run=run),
        facts.draft(NodeCancelled(node="later", reason="over"), run=run),
        facts.draft(RunResumed(reason="crash"), run=run),
        facts.draft(RunCancelRequested(principal="operator:1", reason="enough"), run=run),
        facts.draft(facts.run_finished(), run=run),
        facts.draft(
            MemoryUpdated(namespace="agent:writer", key="tone", value={"warm": True}, entry_version=1)
        ),
        facts.draft(MemoryUpdated(namespace="agent:writer", key="tone", value="cold", entry_version=2)),
        facts.draft(TokenRevoked(token="t-run", reason="asked"), run=run),
        facts.draft(change),
        facts.draft(audit, run=run),
        facts.draft(QuotaWarned(**quota), run=run),
        facts.draft(QuotaExceeded(**quota), run=run),
    ]


def cells(store: Store, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(store.views_db)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_whole_history_is_folded_and_nothing_is_quarantined(store: Store) -> None:
    store.holding(*whole_history(), blobs=BLOBS)
    assert cells(store, "SELECT * FROM quarantine") == []
    assert cells(
        store, "SELECT state, resumed, cost_micro_usd, output_tokens, hostcalls, messages FROM runs"
    ) == [("succeeded", 1, 7, 4, 2, 1)]
    assert cells(store, "SELECT node, state, attempt, fuel, calls, error_code FROM nodes ORDER BY node") == [
        ("draft", "succeeded", 2, 20, 4, None),
        ("late", "skipped", 0, 0, 0, None),
        ("later", "cancelled", 0, 0, 0, None),
        ("send", "succeeded", 1, 10, 2, None),
    ]
    assert cells(store, "SELECT name, emails FROM contacts WHERE contact = 'c1'") == [
        ("John Q. Doe", '["john.doe@example.com"]')
    ]
    assert cells(store, "SELECT email FROM contact_emails ORDER BY email") == [
        ("ann@example.org",),
        ("john.doe@example.com",),
    ]
    assert cells(store, "SELECT state, principal FROM approvals") == [("done", "operator:1000")]
    assert cells(store, "SELECT node, op, state, key FROM hostcalls ORDER BY node") == [
        ("draft", "kb.search", "delivered", None),
        ("send", "mail.send", "delivered", "k"),
    ]
    assert cells(store, "SELECT value, entry_version FROM memory") == [('"cold"', 2)]
    assert cells(store, "SELECT token FROM tokens WHERE revoked_event IS NOT NULL") == [("t-run",)]
    assert cells(store, "SELECT exceeded FROM quotas ORDER BY event") == [(0,), (1,)]


def test_every_block_of_the_fold_is_of_a_kind_that_exists() -> None:
    assert Folds().kinds <= set(KINDS)
    assert set(KINDS) - Folds().kinds == {
        "agent.stopped",
        "daemon.started",
        "daemon.stopped",
        "face.exposed",
        "face.token.issued",
        "face.token.revoked",
        "grant.given",
        "grant.revoked",
        "ledger.rekeyed",
        "ledger.restored",
        "mcp.server.removed",
        "mcp.tool.suspended",
        "mcp.tools.seen",
        "model.reserved",
        "secret.removed",
        "secret.set",
        "secret.used",
        "timer.set",
        "timer.fired",
    }


def test_who_is_quarantined_is_a_view_and_a_release_empties_it(store: Store) -> None:
    def held(name: str, reason: str) -> AgentQuarantined:
        return AgentQuarantined(
            name=name, bundle=None, reason=reason, evidence=[1], by="breaker", principal="daemon"
        )

    store.holding(
        facts.draft(held("writer", "flaps")),
        facts.draft(held("mailer", "flaps")),
        facts.draft(AgentReleased(name="writer", reason="mended", principal="operator:1000")),
        facts.draft(held("mailer", "flaps again")),
    )
    assert cells(store, "SELECT * FROM quarantine") == []
    assert cells(store, "SELECT agent, reason, stated_by FROM held_agents") == [
        ("mailer", "flaps again", "breaker")
    ]


def test_a_waiting_approval_shows_in_node_and_run(store: Store) -> None:
    history = [
        facts.draft(facts.run_started(), run=facts.RUN),
        facts.draft(facts.scheduled("send"), run=facts.RUN),
        facts.draft(facts.action_requested("ap-1"), run=facts.RUN),
        facts.draft(facts.action_requested("ap-2"), run=facts.RUN),
    ]
    store.holding(*history)
    state = "SELECT runs.state, nodes.state FROM runs JOIN nodes USING (run) WHERE node = 'send'"
    assert cells(store, state) == [("waiting", "waiting")]
    store.holding(facts.draft(facts.action_decided("ap-1", "denied"), run=facts.RUN))
    assert cells(store, state) == [("waiting", "waiting")]
    store.holding(facts.draft(facts.action_decided("ap-2"), run=facts.RUN))
    assert cells(store, state) == [("running", "running")]


def test_an_effect_without_its_second_mark_is_visible(store: Store) -> None:
    admitted = next(draft for draft in whole_history() if draft.payload.kind == "hostcall.admitted")  # type: ignore[attr-defined]
    store.holding(admitted)
    assert cells(store, "SELECT op, state, delivered_event FROM hostcalls") == [
        ("mail.send", "admitted", None)
    ]


@pytest.mark.requirement("I2.ledger.4")
def test_folding_in_pieces_gives_what_folding_at_once_gives(stores) -> None:
    at_once, pieces = stores("a"), stores("b")
    at_once.holding(*whole_history())
    with pieces.ledger() as ledger, pieces.materializer() as materializer:
        for draft in whole_history():
            ledger.append([draft])
            materializer.catch_up()
        assert materializer.catch_up(up_to=1) == len(whole_history())
    for table, order in TABLES.items():
        statement = f"SELECT * FROM {table} ORDER BY {order}"
        assert cells(at_once, statement) == cells(pieces, statement), table


@pytest.mark.requirement("I2.ledger.4")
def test_a_rebuild_changes_nothing(store: Store) -> None:
    store.holding(*whole_history(), blobs=BLOBS)
    before = {table: cells(store, f"SELECT * FROM {table}") for table in TABLES}
    assert store.materializer().rebuild() == len(whole_history())
    assert {table: cells(store, f"SELECT * FROM {table}") for table in TABLES} == before
    assert verify(store.events_db, views_path=store.views_db).ok


def test_a_bad_event_is_set_aside_and_the_fold_goes_on(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note(f"d{number}")) for number in range(4)])
        ledger.append([facts.draft(facts.finished(), run=None), facts.draft(facts.contact())])
    connection = sqlite3.connect(store.events_db)
    connection.execute("UPDATE events SET kind = 'from.the.future' WHERE id = 2")
    connection.execute("UPDATE events SET payload = '{}' WHERE id = 3")
    connection.commit()
    connection.close()
    with store.materializer() as materializer:
        assert materializer.catch_up() == 6
        assert [row[:2] for row in materializer.quarantined()] == [
            (2, "from.the.future"),
            (3, "document.imported"),
            (5, "node.finished"),
        ]
    assert cells(store, "SELECT document FROM documents ORDER BY document") == [("d0",), ("d3",)]
    assert cells(store, "SELECT contact FROM contacts") == [("c1",)]


def test_the_cursor_is_stored_with_the_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note(f"d{number}")) for number in range(3)])
    materializer = store.materializer()

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Folds, "apply", kill)
        with pytest.raises(Killed):
            materializer.catch_up()
        with pytest.raises(Killed):
            materializer.rebuild()
    assert (materializer.cursor, cells(store, "SELECT count(*) FROM documents")) == (0, [(0,)])
    assert materializer.catch_up() == 3
    assert cells(store, "SELECT count(*) FROM documents") == [(3,)]


def test_a_full_disk_stops_the_fold_and_quarantines_nothing(store: Store) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note(text="x" * 200_000))] * 3)
    materializer = store.materializer()
    (pages,) = materializer._connection.execute("PRAGMA page_count").fetchone()
    materializer._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ViewsError):
        materializer.catch_up()
    with pytest.raises(ViewsError):
        materializer.rebuild()
    materializer._connection.execute("PRAGMA max_page_count = 100000")
    assert materializer.catch_up() == 3
    assert materializer.quarantined() == []


def test_an_io_error_is_no_fault_of_the_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note())])
    materializer = store.materializer()

    def broken(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_READ"
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Folds, "apply", broken)
        with pytest.raises(ViewsError):
            materializer.catch_up()
    assert (materializer.catch_up(), materializer.quarantined()) == (1, [])


def test_an_event_is_folded_whole_or_not_at_all(store: Store) -> None:
    out_of_order = [
        facts.draft(facts.scheduled(), run=facts.RUN),
        facts.draft(facts.run_started(), run=facts.RUN),
    ]
    store.holding(*out_of_order)
    assert cells(store, "SELECT event FROM quarantine") == [(2,)]
    assert cells(store, "SELECT * FROM runs") == []
    assert cells(store, "SELECT node FROM nodes") == [("draft",)]


def test_views_of_another_ledger_are_folded_anew(stores) -> None:
    one, other = stores("one"), stores("other")
    one.holding(facts.draft(facts.contact("c1")), facts.draft(facts.contact("c2")))
    other.holding(facts.draft(facts.contact("c9")))
    one.views_db.replace(other.views_db)
    with other.materializer() as materializer:
        assert materializer.cursor == 1
    assert cells(other, "SELECT contact FROM contacts") == [("c9",)]


def test_views_that_are_no_database_are_set_aside(store: Store) -> None:
    store.holding(facts.draft(facts.contact()))
    store.views_db.write_bytes(b"rubbish" * 1000)
    with store.materializer() as materializer:
        assert materializer.catch_up() == 1
    assert store.views_db.with_name("views.db.damaged").exists()
    assert cells(store, "SELECT contact FROM contacts") == [("c1",)]


@pytest.mark.requirement("M11")
@pytest.mark.parametrize("version", [VIEWS.version - 1, VIEWS.version + 1, 99])
def test_views_of_a_build_before_or_after_this_one_are_made_anew(store: Store, version: int) -> None:
    store.holding(facts.draft(facts.contact()))
    connection = sqlite3.connect(store.views_db)
    connection.executescript(f"DROP TABLE contacts; PRAGMA user_version = {version}")
    connection.close()
    with store.materializer() as materializer:
        assert materializer.catch_up() == 1
    assert cells(store, "SELECT contact FROM contacts") == [("c1",)]


def test_another_programs_file_is_no_views_and_is_left_alone(store: Store) -> None:
    store.holding(facts.draft(facts.contact()))
    connection = sqlite3.connect(store.views_db)
    connection.execute("PRAGMA application_id = 1")
    connection.close()
    before = store.views_db.read_bytes()
    with pytest.raises(LedgerVersionError):
        store.materializer()
    assert store.views_db.read_bytes() == before


def test_closed_views_refuse(store: Store) -> None:
    store.holding(facts.draft(facts.contact()))
    materializer = store.materializer()
    materializer.close()
    materializer.close()
    with pytest.raises(ViewsError):
        materializer.catch_up()
    with pytest.raises(ViewsError):
        materializer.rebuild()
