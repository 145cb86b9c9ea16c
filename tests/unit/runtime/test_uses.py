"""What an agent really used: read from the views of real facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from runloop.caps.policy import CONTACTS_RAW, KB_DOMAINS
from runloop.digest import blob_digest, canonical
from runloop.events import CapAudit, Draft
from runloopd.runtime.uses import Usage
from tests.unit.pog import facts

AGENT = facts.PIN.name


class Past:
    """A ledger with runs of one agent, and its views."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.drafts: list[Draft] = []
        self.blobs: list[bytes] = []
        self.calls = 0

    def run(self, number: int = 1) -> str:
        run = f"0b7c1d2e-0000-4000-8000-{number:012d}"
        self.drafts += [
            facts.draft(facts.run_started(), run=run),
            facts.draft(facts.scheduled(), run=run),
        ]
        return run

    def called(self, op: str, run: str, *, ok: bool = True, **args: Any) -> None:
        blob = canonical(args)
        self.blobs.append(blob)
        digest = blob_digest(blob)
        self.calls += 1
        done = facts.delivered(call=self.calls, op=op, ok=ok, args_digest=digest, args_blob=digest)
        self.drafts.append(facts.draft(done, run=run))

    async def used(self, runs: int = 20) -> list[tuple[str, str]] | None:
        usage, knowledge, reader = self._open()
        try:
            return await usage.used(AGENT, runs)
        finally:
            knowledge.close()
            reader.close()

    async def last(self) -> dict[str, Any] | None:
        usage, knowledge, reader = self._open()
        try:
            return await usage.last(AGENT)
        finally:
            knowledge.close()
            reader.close()

    def _open(self) -> tuple[Usage, Knowledge, Reader]:
        with Ledger.open(self.root / "events.db") as ledger:
            if self.drafts:
                ledger.append(self.drafts, (*self.blobs, b"{}"))
        with Materializer.open(self.root / "views.db", self.root / "events.db") as views:
            views.catch_up()
        reader = Reader(self.root / "events.db")
        knowledge = Knowledge(self.root / "views.db", reader)

        class Views:
            async def query(self, sql: str, params: list[Any], limit: int, *, raw: bool) -> dict[str, Any]:
                return knowledge.query(sql, params, limit, raw=raw).to_json()

        return Usage(Views(), reader.blob), knowledge, reader


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


async def test_of_an_agent_that_never_ran_nobody_knows_what_it_uses(past: Past) -> None:
    assert await past.used() is None
    assert await past.last() is None


async def test_an_agent_that_ran_and_asked_for_nothing_used_nothing(past: Past) -> None:
    past.run()
    assert await past.used() == []


@pytest.mark.parametrize(
    ("op", "args", "wanted"),
    [
        ("time.now", {}, {("time", "")}),
        ("kb.search", {"query": "q", "kinds": ["note"]}, {("kb_read", "notes")}),
        (
            "kb.search",
            {"query": "q"},
            {
                ("kb_read", "contacts"),
                ("kb_read", "notes"),
                ("kb_read", "mail"),
                ("kb_read", "calendar"),
                (CONTACTS_RAW, ""),
            },
        ),
        ("kb.read", {"kind": "event", "id": "e"}, {("kb_read", "calendar")}),
        ("input.ask", {"question": "?"}, {("promises", "ask")}),
        ("promise.await", {"promise": "pr_1"}, {("promises", "await")}),
        ("msg.publish", {"to": "node/bob", "content": 1}, {("talk", "node/bob")}),
        ("msg.request", {"to": "talk/x", "content": 1}, {("talk", "talk/x")}),
        ("msg.subscribe", {"topics": ["talk/a", "talk/b"]}, {("talk", "talk/a"), ("talk", "talk/b")}),
        ("msg.reply", {"message": "msg_1", "content": 1}, {("talk", "")}),
        ("kb.read", {"kind": "contact", "id": "c"}, {("kb_read", "contacts"), (CONTACTS_RAW, "")}),
        ("kb.why", {"ref": "1"}, {("kb_read", "history")}),
        ("mail.send", {"to": ["A@b.c"], "bcc": ["d@e.f"]}, {("mail", "a@b.c"), ("mail", "d@e.f")}),
        ("http.fetch", {"url": "https://a.example/x"}, {("net", "GET https://a.example/x")}),
        ("log.write", {"text": "x"}, set()),
    ],
)
async def test_a_call_counts_for_the_right_and_the_target_it_was_checked_against(
    past: Past, op: str, args: dict[str, Any], wanted: set[tuple[str, str]]
) -> None:
    past.called(op, past.run(), **args)
    assert set(await past.used() or ()) == wanted


async def test_a_free_query_counts_as_having_read_everything(past: Past) -> None:
    past.called("kb.query", past.run(), sql="SELECT 1")
    found = set(await past.used() or ())
    assert {("kb_read", domain) for domain in KB_DOMAINS} <= found


async def test_a_refused_call_is_no_use(past: Past) -> None:
    past.called("time.now", past.run(), ok=False)
    assert await past.used() == []


async def test_what_was_audited_as_allowed_counts_too(past: Past) -> None:
    run = past.run()
    for decision in ("allowed", "denied"):
        audit = CapAudit(
            agent=AGENT, capability="net", op="tool.call", target=f"GET https://{decision}.example/",
            args_digest="0" * 64, decision=decision, reason="", node="draft", attempt=1, call=1,
        )  # fmt: skip
        past.drafts.append(facts.draft(audit, run=run))
    assert await past.used() == [("net", "GET https://allowed.example/")]


async def test_only_the_last_runs_count(past: Past) -> None:
    past.called("time.now", past.run(1))
    past.called("random.bytes", past.run(2), n=1)
    assert await past.used(1) == [("random", "")]
    assert len(await past.used(2) or ()) == 2
    last = await past.last()
    assert last is not None
    assert last["run"].endswith("2")
