"""What an agent sees of the host: arguments out, answers in, refusals as exceptions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runloop.guest_testing import FakeHost, Refuse
from runloop.host import Completion, Host, HostRefused
from runloop.ops import OPS, decode_args

DIGEST = "ab" * 32


def test_every_op_of_the_table_has_a_method_whose_arguments_the_gate_accepts() -> None:
    fake = FakeHost(
        {
            "kb.query": {"columns": ["a"], "rows": [{"a": 1}], "truncated": False},
            "kb.search": {"items": [{"id": "x"}]},
            "kb.read": {"item": {"id": "x"}},
            "kb.why": {"chain": []},
            "kb.propose": {"kind": "contact.upserted", "id": "x"},
            "memory.get": {"value": 7, "version": 3},
            "memory.put": {"version": 4},
            "blob.read": {"base64": "aGk="},
            "artifact.put": {"name": "n", "digest": DIGEST, "size": 2},
            "model.complete": lambda args: {"stream": "s1"} if args.get("stream") else {"text": "hi"},
            "msg.next": iter_answers({"item": "a"}, {"item": "b"}, {"done": True}),
            "http.fetch": {"status": 200, "url": "https://a.b/", "headers": {}, "text": "{}"},
            "tool.list": {"tools": [{"id": "weather.get_forecast", "granted": True}]},
            "tool.call": {"result": {"forecast": "sun"}},
            "mail.send": {"status": "sent", "message_id": "<1@x>"},
            "memory.list": {"keys": [{"key": "k", "version": 1, "size": 2}], "truncated": False},
            "memory.delete": {"version": 5},
            "model.embed": {"vectors": [[1]], "embedder": "lexical:lexical-1", "dimensions": 1},
            "msg.publish": {"message": "msg_1", "conversation": "msg_1"},
            "msg.request": {"message": "msg_2", "from": "node/b", "act": "inform", "content": 4},
            "msg.reply": {"message": "msg_3", "conversation": "msg_1"},
            "msg.subscribe": {"stream": "talk"},
            "promise.create": {"promise": "pr_1", "expires_ms": 9},
            "promise.await": {"value": 1, "by": "operator:0"},
            "promise.resolve": {"promise": "pr_1"},
            "input.ask": {"value": "yes", "by": "operator:0"},
            "fs.read": {"text": "hi", "offset": 0, "size": 2, "eof": True, "digest": DIGEST},
            "fs.write": {"digest": DIGEST, "size": 2},
            "fs.list": {
                "entries": [{"name": "a", "kind": "file", "size": 1}],
                "truncated": False,
                "skipped": 0,
            },
            "fs.stat": {"kind": "file", "size": 1, "mtime_ms": 0},
        }
    )
    host = fake.host
    assert host.now_ms() > 0
    assert len(host.random_bytes(5)) == 5
    host.log("hello", level="warning", n=1)
    host.progress("half", 0.5)
    assert host.kb_query("SELECT 1", [1], limit=2) == [{"a": 1}]
    assert host.kb_search("john", k=3, kinds=["contact"]) == [{"id": "x"}]
    assert host.kb_read("contact", "x") == {"id": "x"}
    assert host.kb_why("1") == {"chain": []}
    assert host.kb_propose("contact.upserted", {"a": 1})["id"] == "x"
    assert host.memory_get("k") == (7, 3)
    assert host.memory_put("k", {"a": 1}, expected_version=3) == 4
    assert host.blob_read(DIGEST) == b"hi"
    assert host.put_artifact("n", "hi") == DIGEST
    assert host.put_artifact("n", b"\xff") == DIGEST
    assert host.complete("hello", template="{{a}}", facts={"a": 1}).text == "hi"
    assert list(host.complete_stream("hello")) == ["a", "b"]
    assert host.fetch("https://a.b/", headers={"Accept": "x"}, max_bytes=9).json() == {}
    assert [tool["id"] for tool in host.tools()] == ["weather.get_forecast"]
    assert host.call_tool("weather.get_forecast", {"city": "Bern"}) == {"forecast": "sun"}
    assert host.send_mail(["a@b.c"], "s", "b", cc=["c@d.e"])["status"] == "sent"
    host.memory_list(prefix="k")
    host.memory_delete("k", expected_version=4)
    host.embed(["a word"])
    host.publish("talk/prices", {"a": 1}, act="cfp", reply_within_ms=50)
    host.request("node/b", 2, timeout_ms=9)
    host.reply("msg_2", 4)
    assert host.subscribe("talk/prices") == "talk"
    host.wait_for("pr_1")
    host.promise(timeout_ms=9)
    host.resolve("pr_1", 1)
    host.ask("Shall I?", choices=["yes", "no"])
    assert host.fs_read("/srv/a") == b"hi"
    assert host.fs_write("/srv/a", "hi", expected="") == DIGEST
    assert host.fs_list("/srv") == [{"name": "a", "kind": "file", "size": 1}]
    assert host.fs_stat("/srv/a", digest=True)["kind"] == "file"
    by_name = {"agent.delegate", "secret.use"}  # made with host.call until the next build of the runner
    assert {call.op for call in fake.calls} == OPS.keys() - by_name
    for call in fake.calls:
        decode_args(call.op, call.args)


def iter_answers(*answers: Any) -> Any:
    left = list(answers)
    return lambda _args: left.pop(0)


def test_a_refusal_is_an_exception_that_says_how_to_obtain_the_right() -> None:
    fake = FakeHost(
        {"mail.send": Refuse("cap.denied", "mail is not granted", "rlp cap grant", retryable=True)}
    )
    with pytest.raises(HostRefused) as caught:
        fake.host.send_mail(["a@b.c"], "s", "b")
    assert (caught.value.code, caught.value.hint, caught.value.retryable) == (
        "cap.denied",
        "rlp cap grant",
        True,
    )
    assert str(caught.value) == "mail is not granted; rlp cap grant"
    assert caught.value.op == "mail.send"


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}"])
def test_a_refusal_of_any_shape_is_still_a_refusal(text: str) -> None:
    with pytest.raises(HostRefused) as caught:
        Host(lambda _op, _payload: (False, text)).now_ms()
    assert caught.value.code == "host.error"


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_arguments_that_are_not_json_never_reach_the_transport(value: Any) -> None:
    sent: list[str] = []
    host = Host(lambda op, _payload: (bool(sent.append(op)), "null"))
    with pytest.raises((TypeError, ValueError)):
        host.memory_put("k", value)
    assert sent == []


def test_a_long_draw_of_random_bytes_is_made_of_calls_the_gate_allows() -> None:
    fake = FakeHost()
    assert len(fake.host.random_bytes(70_000)) == 70_000
    assert [args["n"] for args in fake.made("random.bytes")] == [65_536, 4_464]


def test_a_host_that_answers_no_random_bytes_does_not_hang_the_agent() -> None:
    with pytest.raises(HostRefused, match="answered nothing"):
        FakeHost({"random.bytes": {"base64": ""}}).host.random_bytes(1)


def test_answers_may_be_bare_values_as_well_as_objects() -> None:
    fake = FakeHost(
        {
            "time.now": 5,
            "memory.get": None,
            "memory.put": 2,
            "artifact.put": DIGEST,
            "mail.send": "<id>",
            "kb.search": [{"id": "x"}],
            "kb.query": {"columns": ["a", "b"], "rows": [[1, 2]]},
            "msg.next": "tail",
        }
    )
    assert fake.host.now_ms() == 5
    assert fake.host.memory_get("k") == (None, 0)
    assert fake.host.memory_put("k", 1) == 2
    assert fake.host.put_artifact("n", "t") == DIGEST
    assert fake.host.send_mail(["a@b.c"], "s", "b") == {"message_id": "<id>"}
    assert fake.host.kb_search("q") == [{"id": "x"}]
    assert fake.host.kb_query("SELECT 1") == [{"a": 1, "b": 2}]
    assert fake.host.next_message("s") == "tail"


def test_a_completion_parses_its_text_as_json_when_it_was_asked_for() -> None:
    fake = FakeHost({"model.complete": {"text": '{"a": 1}', "provider": "rules", "generated": False}})
    answer = fake.host.complete([{"role": "user", "content": "x"}], json_schema={"type": "object"})
    assert (answer.json(), answer.provider, answer.generated) == ({"a": 1}, "rules", False)
    assert Completion("no").raw == {}
    assert json.loads(json.dumps(fake.made("model.complete")[0]["json_schema"])) == {"type": "object"}


@pytest.mark.parametrize(
    ("answer", "body", "ok"),
    [
        ({"status": 200, "text": "Föhn", "truncated": True}, "Föhn".encode(), True),
        ({"status": 404, "base64": "/w=="}, b"\xff", False),
        ({"status": 204}, b"", True),
    ],
)
def test_a_web_answer_is_bytes_in_whatever_form_it_came(
    answer: dict[str, Any], body: bytes, ok: bool
) -> None:
    fake = FakeHost({"http.fetch": answer})
    found = fake.host.fetch("https://a.b/", body="x")
    assert (found.body, found.ok, found.truncated) == (body, ok, answer.get("truncated", False))
    assert found.text == body.decode("utf-8", "replace")
    assert fake.made("http.fetch") == [{"url": "https://a.b/", "method": "GET", "headers": {}, "text": "x"}]
    fake.host.fetch("https://a.b/", method="POST", body=b"\xff")
    assert fake.made("http.fetch")[1]["base64"] == "/w=="
