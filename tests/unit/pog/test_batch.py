"""Many events folded at once make the tables that one by one makes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pog.batch import Lanes
from pog.chain import GENESIS
from pog.folds import TABLES, Folds, create_tables
from pog.refold import REFOLDS
from pog.sql.bulk import Bulk
from runloop.events import (
    CapAudit,
    Draft,
    Event,
    HostcallAdmitted,
    NodeCancelled,
    NodeSkipped,
    Payload,
    QuotaExceeded,
    QuotaWarned,
    TokenRevoked,
)

from . import facts
from .conftest import Store
from .test_prepare import MESSAGE

RUNS = st.sampled_from([facts.RUN, facts.OTHER, None])
NODES = st.sampled_from(["draft", "send"])


def admitted(node: str = "draft", call: int = 0) -> HostcallAdmitted:
    return HostcallAdmitted(
        node=node, attempt=1, call=call, op="mail.send", effect="send", key=f"{node}{call}",
        args_digest="0" * 64, args_blob="0" * 64, request_bytes=1, fuel=2,
    )  # fmt: skip


AUDIT = CapAudit(
    agent="writer",
    capability="net",
    op="http.get",
    target="t",
    args_digest="0" * 64,
    decision="denied",
    reason="r",
)
STATED: st.SearchStrategy[Payload] = st.one_of(
    st.builds(admitted, NODES, st.integers(0, 2)),
    st.builds(facts.delivered, NODES, st.integers(0, 2)),
    st.builds(facts.scheduled, NODES, st.integers(1, 2)),
    st.builds(facts.finished, NODES),
    st.builds(facts.model_called, cost=st.integers(0, 9)),
    st.integers(0, 10**6).map(lambda size: msgspec.structs.replace(MESSAGE, size=size)),
    st.builds(NodeSkipped, node=NODES, reason=st.just("guard")),
    st.builds(NodeCancelled, node=NODES),
    st.builds(
        QuotaWarned, agent=st.just("w"), resource=st.just("calls"), limit=st.just(9), used=st.integers(0, 9)
    ),
    st.builds(
        QuotaExceeded, agent=st.just("w"), resource=st.just("calls"), limit=st.just(9), used=st.just(10)
    ),
    st.just(AUDIT),
    st.just(facts.run_started()),
    st.just(facts.run_finished()),
    st.just(facts.artifact()),
    st.just(facts.token()),
    st.just(TokenRevoked(token="t-node", reason="r")),
)


def events_of(stated: Sequence[tuple[Payload, str | None]]) -> list[Event]:
    return [
        Event(
            id=number, ts_ms=1000 + number, actor="daemon", kind=payload.kind, scope="user", run=run,
            payload=payload, provenance=facts.draft(payload).provenance, hash=bytes(32), prev_hash=GENESIS,
        )
        for number, (payload, run) in enumerate(stated, 1)
    ]  # fmt: skip


@contextmanager
def views() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_tables(connection)
        yield connection


def tables(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
        for table, order in TABLES.items()
    }


FOLDS = Folds()


@pytest.mark.requirement("I4.step.2")
@given(st.lists(st.tuples(STATED, RUNS), max_size=60))
def test_at_once_is_one_by_one(stated: list[tuple[Payload, str | None]]) -> None:
    events, fitting = events_of(stated), []
    with views() as one_by_one, views() as at_once:
        for event in events:
            one_by_one.execute("SAVEPOINT one")
            try:
                FOLDS.apply(one_by_one, event)
                fitting.append(event)
            except sqlite3.IntegrityError:
                one_by_one.execute("ROLLBACK TO one")
            one_by_one.execute("RELEASE one")
        FOLDS.apply_all(at_once, fitting)
        assert tables(at_once) == tables(one_by_one)


def test_the_kinds_that_are_stated_most_are_folded_together() -> None:
    lanes = FOLDS._lanes.kinds
    assert {"message.sent", "hostcall.admitted", "hostcall.delivered", "model.called", "cap.audit"} <= lanes
    # What replaces, deletes or reads other rows goes alone.
    assert not lanes & {"run.started", "run.finished", "contact.upserted", "token.revoked", *REFOLDS}


def test_two_kinds_that_write_one_row_keep_their_order() -> None:
    stated = [(facts.delivered("draft", 0), facts.RUN), (admitted("draft", 0), facts.RUN)]
    with views() as connection:
        FOLDS.apply_all(connection, events_of(stated))
        assert connection.execute(
            "SELECT state, delivered_event, admitted_event FROM hostcalls"
        ).fetchall() == [("admitted", 1, 2)]


def test_one_that_does_not_fit_is_set_aside_and_the_rest_is_folded(store: Store) -> None:
    message = facts.draft(MESSAGE, run=facts.RUN)
    homeless = Draft(payload=facts.scheduled(), actor="daemon")  # nodes belong to runs
    store.holding(facts.draft(facts.run_started(), run=facts.RUN), message, homeless, message)
    with store.materializer() as materializer:
        assert [row[:2] for row in materializer.quarantined()] == [(3, "node.scheduled")]
        found = materializer._connection.execute("SELECT messages, message_bytes FROM runs").fetchall()
    assert found == [(2, 600)]


def test_committed_events_are_folded_without_reading_them_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, materializer = store.ledger(), store.materializer()
    first = ledger.append([facts.draft(facts.note("d1")), facts.draft(MESSAGE)])
    with monkeypatch.context() as patched:
        patched.setattr(materializer._reader, "rows", None)
        assert materializer.catch_up(fresh=first) == 2
    second, third = (ledger.append([facts.draft(facts.note(f"d{number}"))]) for number in (2, 3))
    assert materializer.catch_up(fresh=third) == 4  # a gap: the ledger is read
    assert materializer.catch_up(fresh=second) == 4  # known already
    assert materializer.catch_up(fresh=[*first, *third]) == 4
    documents = materializer._connection.execute("SELECT document FROM documents ORDER BY 1").fetchall()
    assert documents == [("d1",), ("d2",), ("d3",)]


@pytest.mark.parametrize("rows", [0, 1, 3, 16, 17, 64, 65, 150, 600])
def test_any_number_of_rows_goes_in(rows: int) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a, b, c)")
        bulk = Bulk("INSERT INTO t (a, b, c)\nVALUES (:x, coalesce(:y, 'none'), 'fixed');")
        assert bulk.names == ("x", "y")
        bulk.insert(connection, [cell for number in range(rows) for cell in (number, None)])
        found = connection.execute("SELECT * FROM t ORDER BY rowid").fetchall()
    assert found == [(number, "none", "fixed") for number in range(rows)]
    assert bulk.is_one([None] * 2 * rows) == (rows in (1, 3, 16, 64))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET a = :a",
        "INSERT INTO t (a) SELECT :a",
        "INSERT INTO t (a) VALUES (:a) ON CONFLICT (a) DO UPDATE SET a = :b",
        "DELETE FROM t",
    ],
)
def test_another_shape_is_no_bulk(statement: str) -> None:
    with pytest.raises(ValueError, match="not an INSERT"):
        Bulk(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["INSERT INTO runs (run) VALUES (:run);"],
        ["INSERT INTO messages (event, topic) VALUES (:event, (SELECT max(topic) FROM messages));"],
        ["-- summed by run\nUPDATE runs SET messages = :size WHERE run = :run;"],
        ["-- summed by run\nUPDATE runs SET messages = messages + :attempt WHERE run = :run;"],
        ["INSERT INTO messages (event) VALUES (:unknown);"],
        ["INSERT INTO messages (event) VALUES (:event) ON CONFLICT (topic) DO NOTHING;"],
        ["INSERT INTO t (event) VALUES (:event);", "INSERT INTO t (event) VALUES (:event);"],
        ["DELETE FROM messages WHERE event = :event;"],
    ],
    ids=["runs", "subquery", "no sum", "perhaps None", "unknown", "unknown key", "twice", "delete"],
)
def test_a_block_whose_order_might_matter_gets_no_lane(statements: list[str]) -> None:
    assert Lanes({"message.sent": statements}).kinds == frozenset()


def test_kinds_that_share_a_table_and_cannot_tell_its_rows_get_no_lane() -> None:
    plain = ["INSERT INTO t (event) VALUES (:event);"]
    keyed = ["INSERT INTO t (event) VALUES (:event) ON CONFLICT (event) DO NOTHING;"]
    assert Lanes({"message.sent": plain, "cap.audit": plain}).kinds == {"message.sent", "cap.audit"}
    assert Lanes({"message.sent": plain, "cap.audit": keyed}).kinds == {"cap.audit"}
