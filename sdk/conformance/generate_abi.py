"""Writes ``abi.json``, the vectors of the agent ABI; ``--check`` only tells whether the file is stale.

Knows: the inputs a guest gets, the host calls it makes of them and the outputs it gives, all through one
small agent, the probe (see README.md). Shares no code with any SDK; the defaults of arguments come from the
table of host calls.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from runloop.ops import OPS

HERE = Path(__file__).resolve().parent
TARGET = HERE / "abi.json"

Case = dict[str, Any]
Exchange = dict[str, Any]


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def task(*commands: dict[str, Any], **more: Any) -> str:
    """The input that makes the probe do these commands."""
    return text({"op": "handle", "ports": {"in": list(commands)}, "with": {}, "context": {}, **more})


def out(*outcomes: Any, artifacts: list[str] | None = None) -> dict[str, Any]:
    return {"ports": {"out": list(outcomes)}, "artifacts": artifacts or []}


def raw(value: str) -> str:
    """An input whose one command echoes a value given as JSON text."""
    return '{"op":"handle","ports":{"in":[{"do":"echo","value":' + value + "}]}}"


def ask(op: str, args: dict[str, Any], answer: Any) -> Exchange:
    return {"op": op, "args": args, "answer": answer}


def refuse(op: str, args: dict[str, Any], refusal: dict[str, Any]) -> Exchange:
    return {"op": op, "args": args, "refusal": refusal}


def echoes() -> list[Case]:
    """JSON goes through a guest unchanged."""
    plain: dict[str, str] = {
        "null": "null",
        "true": "true",
        "false": "false",
        "nothing in a list": "[]",
        "nothing in an object": "{}",
        "blanks everywhere": ' \t\r\n[ 1 , { "a" : [ ] } ] ',
        "nested": '[[[[{"a":[{"b":{"c":[1,2,[3]]}}]}]]]]',
        "64 levels": "[" * 60 + "]" * 60,
        "the empty key": '{"":1}',
        "of equal keys the last counts": '{"a":1,"b":2,"a":3}',
        "zero": "0",
        "negative": "-17",
        "fractions": "[0.5,-0.25,0.1,1e3,1E-3,2.5e+2,123456.789]",
        "largest exact float": "9007199254740991",
        "smallest exact float": "-9007199254740991",
        "largest double": "1.7976931348623157e308",
        "smallest double": "5e-324",
        "the empty string": '""',
        "short escapes": r'"\"\\\/\b\f\n\r\t"',
        "escaped letters": r'"\u0041\u00e4\u20AC"',
        "a surrogate pair": r'"\ud83d\ude00"',
        "NUL and other controls": r'"a\u0000b\u001f\u007f"',
        "line separators": '"\u2028\u2029"',
        "many scripts": '"γιάννης 你好 שלום 👩\u200d👧 e\u0301 \U0010ffff"',
        "byte order mark inside": '"\ufeffa"',
        "non-characters": '"\ufffe\uffff"',
        "html": '"</script><!-- & \'"',
    }
    made = [
        {"name": f"echo: {name}", "input": raw(value), "output": out(json.loads(value))}
        for name, value in plain.items()
    ]
    wide = {
        "2**53 + 1": 2**53 + 1,
        "largest i64": 2**63 - 1,
        "smallest i64": -(2**63),
        "largest u64": 2**64 - 1,
        "thirty digits": 123_456_789_012_345_678_901_234_567_890,
    }
    made += [
        {"name": f"echo: {name}", "input": raw(str(value)), "output": out(value), "needs": ["exact_integers"]}
        for name, value in wide.items()
    ]
    long = 'ä€😀\\"' * 1_000
    made.append({"name": "echo: 10 kB of text", "input": raw(text(long)), "output": out(long)})
    many = list(range(1_000))
    made.append({"name": "echo: 1000 numbers", "input": raw(text(many)), "output": out(many)})
    return made


def inputs() -> list[Case]:
    """What is no task is a failure in words, never a crash."""
    broken = {
        "nothing": "",
        "blanks": " \n",
        "a list": "[]",
        "a number": "17",
        "null": "null",
        "a string": '"handle"',
        "cut": '{"op":"handle","ports":{"in":[{"do":"echo"',
        "cut in a string": '{"op":"hand',
        "cut in an escape": '{"op":"\\',
        "cut in a unicode escape": '{"op":"\\u00',
        "trailing comma in an object": '{"op":"handle",}',
        "trailing comma in a list": raw("[1,]"),
        "two values": "{}{}",
        "text after the value": "{} x",
        "no colon": '{"op" "handle"}',
        "a bare key": "{op:1}",
        "single quotes": "{'op':'handle'}",
        "a raw control character": raw('"a\nb"'),
        "an unknown escape": raw(r'"\x41"'),
        "a unicode escape of letters": raw(r'"\u00zz"'),
        "a signed unicode escape": raw(r'"\u+041"'),
        "a leading zero": raw("01"),
        "a plus": raw("+1"),
        "no digit after the point": raw("1."),
        "no digit before the point": raw(".5"),
        "no digit in the exponent": raw("1e"),
        "only a minus": raw("-"),
        "hexadecimal": raw("0x10"),
        "a word cut short": raw("tru"),
        "a word too long": raw("nullx"),
        "a comment": raw("1/**/"),
        "a no-break space": "\u00a0{}",
        "a byte order mark": "\ufeff{}",
        "ports that are a list": '{"ports":[]}',
        "a port that is no list": '{"ports":{"in":1}}',
        "with that is a list": '{"with":[]}',
        "context that is text": '{"context":"x"}',
        "args that are a list": '{"op":"tool","tool":"probe.add","args":[1]}',
    }
    made: list[Case] = [
        {"name": f"input: {name}", "input": value, "error": {"codes": ["abi.input"]}}
        for name, value in broken.items()
    ]
    made += [
        {"name": "input: 3000 levels fail and do not crash", "input": "[" * 3_000, "error": {"codes": []}},
        {
            "name": "input: 3000 levels inside a task fail and do not crash",
            "input": raw("[" * 3_000 + "]" * 3_000),
            "error": {"codes": []},
        },
        {
            "name": "input: a lone surrogate is refused on the way in or on the way out",
            "input": raw(r'"a\ud800b"'),
            "error": {"codes": ["abi.input", "agent.output"]},
        },
        {"name": "input: no op is handle", "input": '{"ports":{"in":[]}}', "output": out()},
        {
            "name": "input: parts that are null are empty",
            "input": '{"ports":{"in":[]},"with":null,"context":null,"message":null,"args":null}',
            "output": out(),
        },
        {"name": "input: no part at all", "input": "{}", "output": out()},
        {
            "name": "input: members of the future are ignored",
            "input": '{"x":[{}],"ports":{}}',
            "output": out(),
        },
        {"name": "input: another op", "input": '{"op":"dance"}', "error": {"codes": ["abi.op"]}},
    ]
    return made


def tasks() -> list[Case]:
    """What a task offers, and how an attempt ends on purpose."""
    port, absent = {"do": "port", "name": "text"}, {"do": "port", "name": "absent"}
    return [
        {
            "name": "task: the last value on a port",
            "input": text({"ports": {"in": [port], "text": ["a", "b"]}}),
            "output": out("b"),
        },
        {
            "name": "task: every value on a port",
            "input": text({"ports": {"in": [{"do": "all", "name": "text"}], "text": [1, [2], None]}}),
            "output": out([1, [2], None]),
        },
        {
            "name": "task: no value on a port, asked for all",
            "input": text({"ports": {"in": [{"do": "all", "name": "absent"}]}}),
            "output": out([]),
        },
        {
            "name": "task: a null on a port is a value",
            "input": text({"ports": {"in": [port], "text": [None]}}),
            "output": out(None),
        },
        {"name": "task: a port that got none", "input": task(absent), "error": {"codes": ["task.port"]}},
        {
            "name": "task: a port with an empty list",
            "input": text({"ports": {"in": [port], "text": []}}),
            "error": {"codes": ["task.port"]},
        },
        {
            "name": "task: a value under with",
            "input": text({"ports": {"in": [{"do": "param", "name": "n"}]}, "with": {"n": {"a": 1}}}),
            "output": out({"a": 1}),
        },
        {
            "name": "task: a value that with does not give",
            "input": task({"do": "param", "name": "n"}),
            "error": {"codes": ["task.with"]},
        },
        {
            "name": "task: the context",
            "input": text({"ports": {"in": [{"do": "context"}]}, "context": {"node": "n", "attempt": 2}}),
            "output": out({"node": "n", "attempt": 2}),
        },
        {
            "name": "task: length in characters and in bytes",
            "input": task({"do": "size", "text": "aä€😀\0"}),
            "output": out({"characters": 5, "bytes": 11}),
        },
        {
            "name": "failure: for good",
            "input": task({"do": "fail", "code": "x.bad", "message": 'no "ä"\n', "retryable": False}),
            "error": {"codes": ["x.bad"], "message": 'no "ä"\n', "retryable": False},
        },
        {
            "name": "failure: for now",
            "input": task({"do": "fail", "code": "x.later", "message": "busy", "retryable": True}),
            "error": {"codes": ["x.later"], "message": "busy", "retryable": True},
        },
        {
            "name": "failure: what was done before is not an output",
            "input": task(
                {"do": "echo", "value": 1},
                {"do": "fail", "code": "x.bad", "message": "no", "retryable": False},
            ),
            "error": {"codes": ["x.bad"], "message": "no", "retryable": False},
        },
    ]


DENIED = {"code": "cap.denied", "message": "not granted", "hint": "ask for it", "retryable": False}
BUSY = {"code": "model.busy", "message": "later", "hint": None, "retryable": True}


def hosts() -> list[Case]:
    """Any host call by name; a refusal is a value that one survives or lets go."""
    args = {"text": "ä\u2028\0😀", "list": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    call = {"do": "call", "op": "x.y", "args": args}
    asked = {"op": "x.y", "args": args}
    return [
        {
            "name": "host: arguments and answer are JSON",
            "input": task(call),
            "host": [{**asked, "answer": {"a": ["ß", 1, None], "b": {}}}],
            "output": out({"a": ["ß", 1, None], "b": {}}),
        },
        *(
            {
                "name": f"host: the answer {text(answer)}",
                "input": task(call),
                "host": [{**asked, "answer": answer}],
                "output": out(answer),
            }
            for answer in (None, True, 0, "", [], {}, "text", [[]])
        ),
        {
            "name": "host: a long answer",
            "input": task(call),
            "host": [{**asked, "answer": "ü" * 3_000}],
            "output": out("ü" * 3_000),
        },
        {
            "name": "host: a refusal is survived",
            "input": task(call, {"do": "echo", "value": 1}),
            "host": [{**asked, "refusal": DENIED}],
            "output": out({"refused": DENIED}, 1),
        },
        {
            "name": "host: a refusal for now, without a hint",
            "input": task(call),
            "host": [{**asked, "refusal": BUSY}],
            "output": out({"refused": BUSY}),
        },
        {
            "name": "host: a refusal that is not survived ends the attempt with its code",
            "input": task({**call, "do": "must"}),
            "host": [{**asked, "refusal": DENIED}],
            "error": {"codes": ["cap.denied"], "retryable": False},
        },
        {
            "name": "host: and keeps whether it may succeed later",
            "input": task({**call, "do": "must"}),
            "host": [{**asked, "refusal": BUSY}],
            "error": {"codes": ["model.busy"], "retryable": True},
        },
        {
            "name": "host: a refusal that says little",
            "input": task(call),
            "host": [{**asked, "refusal": {}}],
            "output": out(
                {
                    "refused": {
                        "code": "host.error",
                        "message": "the host call failed",
                        "hint": None,
                        "retryable": False,
                    }
                }
            ),
        },
        {
            "name": "host: a refusal in bare words",
            "input": task(call),
            "host": [{**asked, "refusal_text": "it broke"}],
            "output": out(
                {"refused": {"code": "host.error", "message": "it broke", "hint": None, "retryable": False}}
            ),
        },
        {
            "name": "host: an answer that is not JSON fails the attempt",
            "input": task({**call, "do": "must"}),
            "host": [{**asked, "answer_text": "{oops"}],
            "error": {"codes": []},
        },
        {
            "name": "host: calls come in the order of the program",
            "input": task(*({"do": "call", "op": "x.y", "args": {"n": n}} for n in range(40))),
            "host": [{"op": "x.y", "args": {"n": n}, "answer": n * n} for n in range(40)],
            "output": out(*(n * n for n in range(40))),
        },
    ]


BYTES = bytes(range(256)) + b"\0\xff"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def helper(
    op: str, args: dict[str, Any], answer: Any, outcome: Any, *, name: str = "", sent: Any = None, **more: Any
) -> Case:
    """One helper call. ``args`` is what the probe gives the helper, ``sent`` what the host then gets."""
    return {
        "name": f"helper: {op}{': ' if name else ''}{name}",
        "input": task({"do": "helper", "op": op, "args": args}),
        "host": [ask(op, args if sent is None else sent, answer)],
        "output": out(outcome, **more),
    }


def knowledge() -> list[Case]:
    rows = [[1, "a"], [2, None]]
    objects = [{"id": 1, "name": "a"}, {"id": 2, "name": None}]
    found = [{"kind": "note", "id": "d1", "title": "T", "snippet": "s", "score": 0.5, "event": 3}]
    table = {"columns": ["id", "name"], "rows": rows, "truncated": False}
    return [
        helper("time.now", {}, {"now_ms": 1_73_000_000_123}, 1_73_000_000_123),
        helper("random.bytes", {"n": 3}, {"base64": b64(b"\0\xff\x10")}, {"hex": "00ff10"}),
        helper("random.bytes", {"n": 258}, {"base64": b64(BYTES)}, {"hex": BYTES.hex()}, name="every byte"),
        helper("log.write", {"message": "hé", "level": "warning", "fields": {"n": 1}}, {}, None),
        helper("progress", {"message": "half", "fraction": 0.5}, {}, None),
        helper("progress", {"message": "some", "fraction": None}, {}, None, name="unknown"),
        helper("kb.search", {"query": "x", "k": 2, "kinds": ["note"]}, {"items": found}, found),
        helper("kb.search", {"query": "x", "k": 8, "kinds": []}, {"items": []}, [], name="nothing found"),
        helper("kb.query", {"sql": "select ?", "params": [1, None], "limit": 9}, table, objects),
        helper(
            "kb.read",
            {"kind": "contact", "id": "c1"},
            {"item": {"id": "c1", "emails": ["a@b"]}},
            {"id": "c1", "emails": ["a@b"]},
        ),
        helper("kb.why", {"ref": "d1"}, {"nodes": [], "edges": [[1, 2]]}, {"nodes": [], "edges": [[1, 2]]}),
        helper(
            "kb.propose",
            {"kind": "note", "payload": {"title": "T"}},
            {"kind": "note", "id": "n1"},
            {"kind": "note", "id": "n1"},
        ),
        helper(
            "memory.get",
            {"key": "k", "namespace": "private"},
            {"value": {"a": 1}, "version": 3},
            {"value": {"a": 1}, "version": 3},
        ),
        helper(
            "memory.get",
            {"key": "k", "namespace": "team"},
            {"value": None, "version": 0},
            {"value": None, "version": 0},
            name="never written",
        ),
        helper(
            "memory.put",
            {"key": "k", "value": [1], "namespace": "private", "expected_version": 3},
            {"version": 4},
            4,
        ),
        helper(
            "memory.put",
            {"key": "k", "value": None, "namespace": "private", "expected_version": None},
            {"version": 1},
            1,
            name="whatever was there",
        ),
    ]


def effects() -> list[Case]:
    completion = {"text": "T", "provider": "rules", "model": "m", "generated": False, "finish": "stop"}
    asked = {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "model": "small*",
        "max_tokens": 99,
        "temperature": 0.5,
        "json_schema": {"type": "object"},
        "template": "Hi {{name}}",
        "facts": {"name": "Ada"},
    }
    bare = {
        "messages": [{"role": "user", "content": "u"}],
        "model": None,
        "max_tokens": 1024,
        "temperature": 0,
        "json_schema": None,
        "template": None,
        "facts": {},
    }
    mail = {
        "to": ["a@b.example"],
        "subject": "S",
        "body": "B\n",
        "cc": ["c@d.example"],
        "bcc": [],
        "in_reply_to": "<1@x>",
    }
    sent = {"status": "sent", "message_id": "<2@x>", "recipients": ["a@b.example", "c@d.example"]}
    page = {
        "status": 200,
        "url": "https://x.example/a",
        "headers": {"content-type": "text/plain"},
        "text": "ä",
        "truncated": False,
    }
    binary = {
        "status": 404,
        "url": "https://x.example/b",
        "headers": {},
        "base64": b64(b"\0\xff"),
        "truncated": True,
    }
    fetch = {"url": "https://x.example/a", "method": "GET", "headers": {"accept": "text/plain"}}
    post = {"url": "https://x.example/b", "method": "POST", "headers": {}}
    tools = [{"id": "w.get", "description": "d", "granted": False, "missing": ["net"]}]
    return [
        helper(
            "artifact.put",
            {"name": "a.txt", "media_type": "text/plain; charset=utf-8", "text": "ä"},
            {"name": "a.txt", "digest": "d" * 64, "size": 2},
            "d" * 64,
            artifacts=["d" * 64],
        ),
        helper(
            "artifact.put",
            {"name": "a.bin", "media_type": "application/octet-stream", "base64": b64(BYTES)},
            {"name": "a.bin", "digest": "e" * 64, "size": 258},
            "e" * 64,
            name="bytes",
            artifacts=["e" * 64],
        ),
        helper(
            "blob.read",
            {"digest": "d" * 64, "offset": 2, "length": 3},
            {"base64": "AAEC", "offset": 2, "size": 9, "eof": False},
            {"hex": "000102"},
        ),
        *(
            helper(
                "blob.read",
                {"digest": "d" * 64, "offset": 0, "length": 65_536},
                {"base64": b64(BYTES[:size]), "offset": 0, "size": size, "eof": True},
                {"hex": BYTES[:size].hex()},
                name=f"{size} bytes",
            )
            for size in (0, 1, 2, 3, 4, 258)
        ),
        helper("model.complete", asked, completion, completion),
        helper("model.complete", bare, completion, completion, name="the least"),
        helper("msg.next", {"stream": "s1"}, {"item": {"text": "a"}}, {"text": "a"}),
        helper("msg.next", {"stream": "s1"}, {"done": True}, None, name="the end"),
        helper("mail.send", mail, sent, sent),
        helper(
            "http.fetch",
            fetch,
            page,
            {
                "status": 200,
                "url": page["url"],
                "headers": page["headers"],
                "hex": "c3a4",
                "truncated": False,
            },
        ),
        helper(
            "http.fetch",
            {**post, "text": "ä", "max_bytes": 100},
            binary,
            {"status": 404, "url": binary["url"], "headers": {}, "hex": "00ff", "truncated": True},
            name="a text for bytes",
        ),
        helper(
            "http.fetch",
            {**post, "base64": b64(b"\xff\0")},
            page,
            {
                "status": 200,
                "url": page["url"],
                "headers": page["headers"],
                "hex": "c3a4",
                "truncated": False,
            },
            name="bytes for a text",
        ),
        helper(
            "fs.read",
            {"path": "/d/a", "offset": 2, "length": 3},
            {"text": "ä", "offset": 2, "size": 4, "eof": True, "digest": "d" * 64},
            {"hex": "c3a4"},
        ),
        helper(
            "fs.read",
            {"path": "/d/a", "offset": 0, "length": 2},
            {"base64": "AP8=", "offset": 0, "size": 2, "eof": True, "digest": "d" * 64},
            {"hex": "00ff"},
            name="what is no text",
        ),
        helper("fs.write", {"path": "/d/a", "text": "ä"}, {"digest": "d" * 64, "size": 2}, "d" * 64),
        helper(
            "fs.write",
            {"path": "/d/a", "base64": "AP8=", "expected": ""},
            {"digest": "d" * 64, "size": 2},
            "d" * 64,
            name="bytes of a new file",
        ),
        helper(
            "fs.write",
            {"path": "/d/a", "text": "", "expected": "e" * 64},
            {"digest": "d" * 64, "size": 0},
            "d" * 64,
            name="what was read",
        ),
        helper(
            "fs.list",
            {"path": "/d", "after": "a", "limit": 1},
            {"entries": [{"name": "ä", "kind": "file", "size": 2}], "truncated": True, "skipped": 0},
            {"entries": [{"name": "ä", "kind": "file", "size": 2}], "truncated": True},
        ),
        helper(
            "fs.stat",
            {"path": "/d/a", "digest": True},
            {"kind": "file", "size": 2, "mtime_ms": 1, "digest": "d" * 64},
            {"kind": "file", "size": 2, "mtime_ms": 1, "digest": "d" * 64},
        ),
        helper("tool.list", {}, {"tools": tools}, tools),
        helper(
            "tool.call",
            {"tool": "w.get", "args": {"city": "Ulm"}},
            {"result": [1, {"a": None}]},
            [1, {"a": None}],
        ),
        {
            "name": "helper: a refused effect is survived",
            "input": task({"do": "helper", "op": "mail.send", "args": mail}),
            "host": [refuse("mail.send", mail, DENIED)],
            "output": out({"refused": DENIED}),
        },
    ]


def tools() -> list[Case]:
    add = {"id": "probe.add", "description": "Adds two numbers."}
    fail = {"id": "probe.fail", "description": "Fails."}
    return [
        {"name": "tool: what there is", "input": '{"op":"describe"}', "includes": {"tools": [add, fail]}},
        {
            "name": "tool: a call",
            "input": text({"op": "tool", "tool": "probe.add", "args": {"a": 2, "b": 40}}),
            "output": {"ports": {"result": [42]}, "artifacts": []},
        },
        {
            "name": "tool: an argument is missing",
            "input": text({"op": "tool", "tool": "probe.add", "args": {"a": 2}}),
            "error": {"codes": ["task.arguments"]},
        },
        {
            "name": "tool: an argument of the wrong type",
            "input": text({"op": "tool", "tool": "probe.add", "args": {"a": 2, "b": "x"}}),
            "error": {"codes": ["task.arguments"]},
        },
        {
            "name": "tool: one that fails",
            "input": text({"op": "tool", "tool": "probe.fail", "args": {}}),
            "error": {"codes": ["probe.failed"], "message": "as told", "retryable": True},
        },
        {
            "name": "tool: one there is not",
            "input": text({"op": "tool", "tool": "probe.none", "args": {}}),
            "error": {"codes": ["abi.tool"]},
        },
        {"name": "tool: none named", "input": '{"op":"tool"}', "error": {"codes": ["abi.tool"]}},
    ]


def defaults() -> dict[str, dict[str, Any]]:
    """Op -> arguments that may be left out, with the value they then have."""
    found: dict[str, dict[str, Any]] = {}
    for name, op in sorted(OPS.items()):
        found[name] = {}
        for field in msgspec.structs.fields(op.args):
            value = field.default
            if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
                value = field.default_factory()
            if value is not msgspec.NODEFAULT and value is not None:
                found[name][field.name] = value
    return found


def render() -> str:
    """The content of abi.json, one case on a line."""
    cases = [*echoes(), *inputs(), *tasks(), *hosts(), *knowledge(), *effects(), *tools()]
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=True) for case in cases)
    return f'{{"version": 1,\n"defaults": {json.dumps(defaults())},\n"cases": [\n{lines}\n]}}\n'


def main() -> int:
    wanted = render()
    if "--check" in sys.argv[1:]:
        return int(not TARGET.is_file() or TARGET.read_text() != wanted)
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
