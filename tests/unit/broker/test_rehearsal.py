"""A rehearsal refuses exactly what the gate refuses, and answers with nothing but the script."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from runloop.bundle.tools import parse_tools
from runloop.caps.policy import NOTHING, Policy, everything
from runloop.digest import digest
from runloop.ops import OPS
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.quotas import Quotas
from runloopd.broker.rehearsal import NOW_MS, Rehearsal

from .world import World, ask, caps, contact, mail, pin, quotas

TOOLS = parse_tools(
    """{"version": 1, "tools": [
    {"id": "web.get", "description": "x", "capabilities": ["net:api.example.org"],
     "transport": {"kind": "http", "method": "GET", "url": "https://api.example.org/x", "query": ["n"]},
     "input_schema": {"type": "object", "additionalProperties": false,
      "properties": {"n": {"type": "integer"}}},
     "result_schema": {"type": "object", "required": ["ok"]}},
    {"id": "own.do", "description": "x", "transport": {"kind": "wasm", "tool": "own.do"},
     "input_schema": {"type": "object"}}
    ]}"""
)


def caller(ops: frozenset[str] = frozenset(OPS)) -> Caller:
    return Caller(
        run="test",
        node="draft",
        attempt=1,
        pin=pin(),
        token=b"",
        token_id="",
        ops=ops,
        scheduled_id=0,
        tools=TOOLS,
    )


def rehearsal(
    grants: Policy | str | None = None,
    script: dict[str, Any] | None = None,
    limits: Quotas | None = None,
    **more: Any,
) -> Rehearsal:
    policy = everything() if grants is None else caps(grants) if isinstance(grants, str) else grants
    return Rehearsal(caller(**more), policy, script or {}, limits or Quotas())


async def call(rehearsed: Rehearsal, op: str, args: Any = None, index: int = 0) -> Answer:
    args = {} if args is None else args
    made = HostCall(
        index=index, op=op, args=args, args_digest=digest(args), fuel=1_000, request_bytes=len(op) + 100
    )
    return await rehearsed.answer(made)


# --- the same judgement ---------------------------------------------------------------------------

JUDGEMENTS = (
    "cap.",
    "op.",
    "fs.path",
    "kb.kind",
    "memory.namespace",
    "http.",
    "net.",
    "tool.",
    "mail.",
    "case.",
)
LET_THROUGH = (
    "tool.unavailable",
    "kb.absent",
    "not_found",
    "blob.absent",
    "model.",
    "case.unscripted",
    "kb.query",
    "kb.sql",
)

DOCUMENT = {
    "kind": "document.imported",
    "payload": {"document": "d", "type": "note", "title": "t", "text": "x"},
}
LETTER = {**DOCUMENT, "payload": {**DOCUMENT["payload"], "type": "mail"}}  # type: ignore[dict-item]
QUESTIONS: list[tuple[str, str, Any]] = [
    *(("", op, {}) for op in OPS),
    *(("", op, {"approved": True}) for op in OPS),
    ("", "exec.run", {"argv": ["rm"]}),
    ("", "time.now", {}),
    ("time = true", "time.now", {}),
    ("random = true", "random.bytes", {"n": 4}),
    ("random = true", "random.bytes", {"n": 0}),
    ("random = true", "random.bytes", {"n": 65_537}),
    ("", "progress", {"message": "x", "fraction": 2.0}),
    ("", "artifact.put", {"name": "a/b", "text": "x"}),
    ("", "artifact.put", {"name": "a", "text": "x", "base64": "eA=="}),
    ("", "artifact.put", {"name": "a", "base64": "?"}),
    ("", "artifact.put", {"name": "a", "text": "x", "media_type": "no"}),
    ("", "blob.read", {"digest": "a" * 64, "offset": -1}),
    ('kb_read = ["notes"]', "kb.search", {"query": "x"}),
    ('kb_read = ["notes"]', "kb.search", {"query": "x", "kinds": ["contact"]}),
    ('kb_read = ["notes"]', "kb.search", {"query": "x", "k": 51}),
    ('kb_read = ["history"]', "kb.search", {"query": "x"}),
    ('kb_read = ["notes"]', "kb.read", {"kind": "contact", "id": "x"}),
    ('kb_read = ["contacts"]', "kb.read", {"kind": "document", "id": "x"}),
    ('kb_read = ["notes"]', "kb.why", {"ref": "1"}),
    ('kb_read = ["notes"]', "kb.query", {"sql": "select 1", "limit": 1_001}),
    ('kb_write = ["notes"]', "kb.propose", contact("ann")),
    ('kb_write = ["contacts"]', "kb.propose", contact("ann")),
    ('kb_write = ["notes"]', "kb.propose", LETTER),
    ('kb_write = ["notes"]', "kb.propose", DOCUMENT),
    ("kb_write = true", "kb.propose", {"kind": "run.finished", "payload": {}}),
    ("", "memory.get", {"key": "a", "namespace": "agent:other"}),
    ("", "memory.put", {"key": "a", "value": 1, "namespace": "shared"}),
    ("", "memory.put", {"key": "a", "value": 1, "namespace": "agent:other"}),
    ('model = ["gpt-*"]', "model.complete", {**ask("hi"), "messages": []}),
    ('mail = ["*@example.org"]', "mail.send", mail(to=["eve@evil.test"])),
    ('mail = ["*@example.org"]', "mail.send", mail(bcc=["eve@evil.test"])),
    ('net = ["a.example.org"]', "http.fetch", {"url": "https://b.example.org/"}),
    ('net = ["a.example.org"]', "http.fetch", {"url": "http://a.example.org/"}),
    ('net = ["a.example.org"]', "http.fetch", {"url": "https://a.example.org/", "method": "POST"}),
    ('net = ["a.example.org"]', "http.fetch", {"url": "https://a.example.org/", "headers": {"Host": "b"}}),
    ('net = ["a.example.org"]', "http.fetch", {"url": "no url"}),
    ('net = ["127.0.0.1"]', "http.fetch", {"url": "https://127.0.0.2/"}),
    ("", "http.fetch", {"url": "https://a.example.org/"}),
    ("", "fs.read", {"path": "/docs/a"}),
    ('fs_rw = ["/docs"]', "fs.read", {"path": "/docs-private/a"}),
    ('fs_rw = ["/docs"]', "fs.read", {"path": "/docs/../a"}),
    ('fs_rw = ["/docs"]', "fs.read", {"path": "docs"}),
    ('fs_rw = ["/docs"]', "fs.read", {"path": "/docs/a", "length": 0}),
    ('fs_ro = ["/docs"]', "fs.write", {"path": "/docs/a", "text": "x"}),
    ('fs_rw = ["/docs"]', "fs.write", {"path": "/other/a", "text": "x"}),
    ('fs_rw = ["/docs"]', "fs.write", {"path": "/docs/a", "text": "x", "base64": "eA=="}),
    ('fs_rw = ["/docs"]', "fs.write", {"path": "/docs/a", "text": "x", "expected": "?"}),
    ('fs_ro = ["/docs"]', "fs.list", {"path": "/docs", "limit": 1_001}),
    ('fs_ro = ["/docs"]', "fs.list", {"path": "/", "limit": 1}),
    ('fs_ro = ["/docs"]', "fs.stat", {"path": "/docs/none"}),
    ('talk = ["node/bob"]', "msg.publish", {"to": "node/cid", "content": 1}),
    ('talk = ["node/bob"]', "msg.request", {"to": "bob", "content": 1}),
    ("talk = true", "msg.request", {"to": "node/bob", "content": 1, "timeout_ms": 0}),
    ("talk = true", "msg.publish", {"to": "node/bob", "content": 1, "act": "shout"}),
    ('talk = ["talk/a"]', "msg.subscribe", {"topics": ["talk/b"]}),
    ("", "tool.call", {"tool": "web.get", "args": {}}),
    ('net = ["api.example.org"]', "tool.call", {"tool": "web.get", "args": {"n": "x"}}),
    ('net = ["api.example.org"]', "tool.call", {"tool": "web.gte", "args": {}}),
    ('net = ["api.example.org"]', "tool.call", {"tool": "own.do", "args": {}}),
]  # fmt: skip


def judgement(answer: Answer) -> str:
    """What the guest is told of its rights and arguments; empty where it was let through."""
    code = "" if answer.ok else str(answer.value["code"])
    passes = not code.startswith(JUDGEMENTS) or code.startswith(LET_THROUGH)
    return "" if passes else code


@pytest.mark.parametrize(("grants", "op", "args"), QUESTIONS)
async def test_the_gate_and_the_rehearsal_say_the_same(world: World, grants: str, op: str, args: Any) -> None:
    real = await world.call(replace(await world.caller(grants), tools=TOOLS), op, args)
    script = {"tool.call": {"result": {"ok": True}}}
    tried = await call(rehearsal(grants, script), op, args)
    assert judgement(tried) == judgement(real), (real.value, tried.value)
    if judgement(real):
        assert tried.value["message"] == real.value["message"]


async def test_a_result_that_does_not_fit_its_tool_is_told_as_in_a_run(world: World) -> None:
    grants = 'net = ["api.example.org"]'
    world.web.body = b'{"other": 1}'
    asked = {"tool": "web.get", "args": {"n": 1}}
    real = await world.call(replace(await world.caller(grants), tools=TOOLS), "tool.call", asked)
    tried = await call(rehearsal(grants, {"tool.call": {"result": {"other": 1}}}), "tool.call", asked)
    assert real.value["code"] == tried.value["code"] == "tool.result"


# --- only the script ------------------------------------------------------------------------------


async def test_the_script_answers_word_for_word() -> None:
    hits = {"items": [{"kind": "note", "id": "n", "made": "up"}]}
    answer = await call(rehearsal("kb_read = true", {"kb.search": hits}), "kb.search", {"query": "x"})
    assert answer == Answer(ok=True, value=hits)


async def test_the_script_refuses_as_the_gate_would() -> None:
    no = {"refuse": {"code": "mail.down", "message": "try later", "retryable": True}}
    answer = await call(rehearsal("kb_read = true", {"kb.search": no}), "kb.search", {"query": "x"})
    assert not answer.ok
    assert answer.value == {"code": "mail.down", "message": "try later", "hint": None, "retryable": True}


async def test_a_right_is_asked_for_before_the_script() -> None:
    rehearsed = rehearsal(NOTHING, {"kb.search": {"items": []}})
    answer = await call(rehearsed, "kb.search", {"query": "x"})
    assert answer.value["code"] == "cap.denied"
    (denial,) = rehearsed.denied
    assert (denial.op, denial.code) == ("kb.search", "cap.denied")


async def test_what_the_manifest_does_not_declare_is_refused_whatever_is_granted() -> None:
    rehearsed = rehearsal(script={"kb.search": {}}, ops=frozenset({"time.now"}))
    answer = await call(rehearsed, "kb.search", {"query": "x"})
    assert "does not declare kb.search" in answer.value["message"]


async def test_clock_chance_log_and_progress_need_no_script_and_never_change() -> None:
    for _ in range(2):
        rehearsed = rehearsal()
        assert (await call(rehearsed, "time.now")).value == {"now_ms": NOW_MS}
        chance = await call(rehearsed, "random.bytes", {"n": 3})
        assert base64.b64decode(chance.value["base64"]) == b"\0\1\2"
        assert (await call(rehearsed, "log.write", {"message": "m"})).value == {}
        assert (await call(rehearsed, "progress", {"message": "m"})).value == {}
        assert rehearsed.unscripted == []


async def test_what_the_script_lacks_is_refused_and_remembered() -> None:
    rehearsed = rehearsal()
    for op, args in (
        ("kb.search", {"query": "x"}),
        ("mail.send", mail()),
        ("model.complete", ask("hi")),
        ("memory.put", {"key": "k", "value": 1}),
    ):
        answer = await call(rehearsed, op, args)
        assert answer.value["code"] == "case.unscripted"
    assert rehearsed.unscripted == ["kb.search", "mail.send", "model.complete", "memory.put"]


@pytest.mark.parametrize(
    ("model", "code"),
    [(None, "case.unscripted"), ("gpt-5", "case.unscripted"), ("*", "case.unscripted"), ("o", "cap.denied")],
)
async def test_a_model_by_its_name_must_be_granted(model: str | None, code: str) -> None:
    answer = await call(rehearsal('model = ["gpt-*"]'), "model.complete", ask("hi", model=model))
    assert answer.value["code"] == code


async def test_a_hard_limit_ends_the_case_as_it_ends_an_attempt() -> None:
    rehearsed = rehearsal(limits=quotas(calls=2))
    for number in range(3):
        answer = await call(rehearsed, "progress", {"message": "m"}, number)
    assert answer.value["code"] == "quota.exceeded"
    assert rehearsed.exceeded is not None and rehearsed.exceeded.resource == "calls"


async def test_a_fault_of_ours_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed = rehearsal()
    monkeypatch.setattr(rehearsed, "_count", lambda ask: 1 / 0)
    answer = await call(rehearsed, "progress", {"message": "m"})
    assert not answer.ok and answer.value["code"] == "internal"
