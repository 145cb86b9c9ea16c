"""Write the vectors of this directory; ``--check`` only tells whether they are stale.

Shares no code with any implementation: frames and MessagePack are packed by hand below, so that a mistake of
the Python reader cannot hide in its own vectors. Only the registry's text is read, and BLAKE3 is borrowed.
"""

from __future__ import annotations

import json
import struct
import sys
import tomllib
from pathlib import Path
from typing import Any

from blake3 import blake3

HERE = Path(__file__).resolve().parent
REGISTRY = {
    row["id"]: row["type"]
    for row in tomllib.loads((HERE.parent / "schema/registry.toml").read_text())["schema"]
}
NOW = 1_750_000_000_000
TTL = 30_000
U64 = 2**64 - 1


def text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) < 32:
        return bytes([0xA0 | len(raw)]) + raw
    return (
        b"\xd9" + bytes([len(raw)]) + raw if len(raw) < 256 else b"\xda" + struct.pack(">H", len(raw)) + raw
    )


def pack(value: Any) -> bytes:  # noqa: PLR0911 - one return per kind of value
    """The shortest MessagePack of a JSON value or bytes."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        heads = ((256, b"\xc4", ">B"), (65_536, b"\xc5", ">H"), (2**32, b"\xc6", ">I"))
        head, form = next((head, form) for bound, head, form in heads if len(value) < bound)
        return head + struct.pack(form, len(value)) + value
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, list):
        return counted(len(value), 0x90, b"\xdc", b"\xdd") + b"".join(map(pack, value))
    pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
    return counted(len(value), 0x80, b"\xde", b"\xdf") + pairs


def counted(count: int, fix: int, short: bytes, long: bytes) -> bytes:
    if count < 16:
        return bytes([fix | count])
    return short + struct.pack(">H", count) if count < 65_536 else long + struct.pack(">I", count)


def integer(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    forms = (
        ((256, b"\xcc", ">B"), (65_536, b"\xcd", ">H"), (2**32, b"\xce", ">I"), (2**64, b"\xcf", ">Q"))
        if value >= 0
        else ((128, b"\xd0", ">b"), (32_768, b"\xd1", ">h"), (2**31, b"\xd2", ">i"), (2**63, b"\xd3", ">q"))
    )
    head, form = next(
        (head, form) for bound, head, form in forms if (value if value >= 0 else -value - 1) < bound
    )
    return head + struct.pack(form, value)


def body(type: str, payload: Any, meta: dict[str, Any] | None = None) -> bytes:
    packed = (
        bytes([0x82 if meta is None else 0x83]) + text("type") + text(type) + text("payload") + pack(payload)
    )
    return packed if meta is None else packed + text("meta") + pack(meta)


def frame(content: bytes, **fields: Any) -> bytes:
    """A frame; every header field can be overridden to make it wrong."""
    get = fields.get
    header = struct.pack(
        ">4sHHIHHIQQ16sQI",
        get("magic", b"RMP0"),
        get("version", 0),
        get("header_len", 64),
        get("flags", 0),
        get("schema", 1),
        get("reserved", 0),
        get("body_len", len(content)),
        get("created", NOW),
        get("ttl", TTL),
        get("trace", 0).to_bytes(16, "big"),
        get("msg_id", 1),
        get("tail", 0),
    )
    return struct.pack(">I", get("frame_len", 64 + len(content))) + header + content


GENERIC = REGISTRY[1]
GOOD = frame(body(GENERIC, {"n": 1}, {"topic": "demo/one"}))
NESTED_63 = b"\x91" * 62 + b"\xc0"
"""62 arrays: with the body's own map 63 deep."""


def golden() -> list[dict[str, Any]]:
    deep = {"list": [[[[1]]]], "map": {"a": {"b": {"c": None}}}}
    meta = {
        "topic": "agent/writer",
        "opening_id": bytes(range(16)),
        "priority": 255,
        "tags": ["a", "ö"],
        "conversation": "c1",
        "correlation": "k",
        "reply_to": "rlp/runs/x/replies/draft/1",
        "performative": "request",
        "max_hops": 16,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "unknown_key": [1, {"kept": True}],
    }
    numbers = [
        0,
        127,
        128,
        255,
        256,
        65_535,
        65_536,
        2**32 - 1,
        2**32,
        U64,
        -1,
        -32,
        -33,
        -128,
        -129,
        -32_768,
    ]
    numbers += [-32_769, -(2**31), -(2**31) - 1, -(2**63)]
    rows: list[tuple[str, int, Any, dict[str, Any] | None, dict[str, Any]]] = [
        ("the smallest envelope", 1, None, None, {}),
        ("a topic in meta", 1, {"n": 1}, {"topic": "demo/one"}, {}),
        ("every key of meta", 2, "hi", meta, {}),
        ("integers at the edges of their encodings", 1, numbers, None, {}),
        ("floats", 1, [0.5, -1.25, 1e300], None, {}),
        (
            "texts at the edges of their encodings",
            1,
            ["", "x" * 31, "x" * 32, "x" * 255, "x" * 256],
            None,
            {},
        ),
        ("bytes at the edges of their encodings", 1, [b"", b"\0" * 255, b"\0" * 256], None, {}),
        ("wide containers", 1, [list(range(16)), {str(n): n for n in range(16)}], None, {}),
        ("a deep payload", 7, deep, None, {}),
        ("a type longer than 31 bytes", 4001, {"ok": True}, {"topic": "rlp/runs/x/replies/a/1"}, {}),
        (
            "the largest header values",
            1,
            True,
            None,
            {"trace": 2**128 - 1, "msg_id": U64, "created": U64 - 1, "ttl": 1},
        ),
        ("a trace id", 8, {}, None, {"trace": 0x0B7C5A3E9F204C1D8E6FA1B2C3D4E5F6, "msg_id": 42}),
        ("a third party's schema", 0x8001, {"vendor": "acme", "schema_hash": "00ff", "x": 1}, None, {}),
        *session_frames(),
    ]
    made = []
    for name, schema, payload, keys, fields in rows:
        type = REGISTRY.get(schema, "observation.acme.thing.v1")
        made.append(row(name, schema, type, payload, keys, body(type, payload, keys), fields, writer=True))
    for number, type in REGISTRY.items():
        made.append(row(f"schema {number}", number, type, {}, None, body(type, {}), {}, writer=True))
    long = b"\xdf\x00\x00\x00\x02" + b"\xd9\x04type" + text(GENERIC) + text("payload") + b"\xcd\x00\x01"
    made.append(row("legal, but not the shortest encoding", 1, GENERIC, 1, None, long, {}, writer=False))
    return made


def row(
    name: str,
    schema: int,
    type: str,
    payload: Any,
    meta: dict[str, Any] | None,
    content: bytes,
    fields: dict[str, Any],
    *,
    writer: bool,
) -> dict[str, Any]:
    return {
        "name": name,
        "hex": frame(content, schema=schema, **fields).hex(),
        "frame": {
            "schema_id": schema,
            "created_at_ms": fields.get("created", NOW),
            "ttl_ms": fields.get("ttl", TTL),
            "trace_id": f"{fields.get('trace', 0):032x}",
            "msg_id": fields.get("msg_id", 1),
        },
        "envelope": {"type": type, "payload": show(payload), "meta": show(meta or {})},
        "writer": writer,
    }


def show(value: Any) -> Any:
    """Bytes as JSON can hold them."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {key: show(item) for key, item in value.items()}
    return [show(item) for item in value] if isinstance(value, list) else value


def raw(content: bytes, **fields: Any) -> bytes:
    """``content`` where the payload belongs, spliced in unpacked."""
    return frame(b"\x82" + text("type") + text(GENERIC) + text("payload") + content, **fields)


def with_meta(content: bytes) -> bytes:
    head = b"\x83" + text("type") + text(GENERIC) + text("payload") + b"\xc0" + text("meta")
    return frame(head + content)


def errors() -> list[dict[str, Any]]:
    key, two = text("type") + text(GENERIC), text("payload") + b"\xc0"
    table: dict[str, list[tuple[str, bytes, dict[str, Any]]]] = {
        "InvalidMagic": [
            ("another magic", frame(body(GENERIC, 1), magic=b"RMP1"), {}),
            ("zeros", struct.pack(">I", 64) + bytes(64), {}),
            ("after a legal frame", GOOD + frame(body(GENERIC, 1), magic=b"HTTP", msg_id=2), {"accepted": 1}),
        ],
        "UnsupportedVersion": [
            ("version 1", frame(body(GENERIC, 1), version=1), {}),
            ("version 65535", frame(body(GENERIC, 1), version=65_535), {}),
        ],
        "TruncatedHeader": [
            ("length prefix 63", struct.pack(">I", 63) + GOOD[4:67], {}),
            ("length prefix 0", bytes(4), {}),
            ("the stream ends inside the header", GOOD[:40], {"end": True}),
            (
                "the stream ends inside the prefix of a second frame",
                GOOD + GOOD[:3],
                {"accepted": 1, "end": True},
            ),
        ],
        "InvalidHeaderFlags": [
            ("flag bit 0", frame(body(GENERIC, 1), flags=1), {}),
            ("flag bit 31", frame(body(GENERIC, 1), flags=2**31), {}),
            ("first reserved field", frame(body(GENERIC, 1), reserved=1), {}),
            ("last reserved field", frame(body(GENERIC, 1), tail=1), {}),
        ],
        "LengthMismatch": [
            ("body_len too small", frame(body(GENERIC, 1), body_len=1), {}),
            ("body_len too large", frame(body(GENERIC, 1), body_len=2**32 - 1), {}),
            ("header_len 63", frame(body(GENERIC, 1), header_len=63), {}),
            ("header_len 128", frame(body(GENERIC, 1), header_len=128), {}),
        ],
        "UnknownSchema": [
            ("schema 0", frame(body(GENERIC, 1), schema=0), {}),
            ("a gap in the registry", frame(body(GENERIC, 1), schema=99), {}),
            ("ours, not given out yet", frame(body(GENERIC, 1), schema=5999), {}),
        ],
        "BodyTooLarge": [
            (
                "one byte above 8 MiB, judged by the prefix alone",
                struct.pack(">I", 64 + 8 * 1024 * 1024 + 1),
                {},
            ),
            ("the largest length there is", struct.pack(">I", 2**32 - 1), {}),
            ("another protocol", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", {}),
            ("above a lowered cap", frame(body(GENERIC, b"x" * 100)), {"max_body": 100}),
        ],
        "InvalidTtl": [("ttl 0", frame(body(GENERIC, 1), ttl=0), {})],
        "InvalidExpiry": [
            ("one beyond u64", frame(body(GENERIC, 1), created=U64, ttl=1), {}),
            ("both at the end", frame(body(GENERIC, 1), created=U64, ttl=U64), {}),
        ],
        "Expired": [
            ("at the very millisecond", GOOD, {"now_ms": NOW + TTL}),
            ("long ago", GOOD, {"now_ms": NOW + 10 * TTL}),
        ],
        "Duplicate": [
            ("the same frame twice", GOOD + GOOD, {"accepted": 1}),
            (
                "the same id with another body",
                GOOD + frame(body(GENERIC, 2, {"topic": "demo/two"})),
                {"accepted": 1},
            ),
        ],
        "BodyDecodeError": [
            ("an empty body", frame(b""), {}),
            ("an array", frame(b"\x90"), {}),
            ("no payload", frame(b"\x81" + key), {}),
            ("payload first", frame(b"\x82" + two + key), {}),
            ("type twice", frame(b"\x83" + key + key + two), {}),
            ("type twice, the second behind the payload", frame(b"\x83" + key + two + key), {}),
            (
                "a fourth key",
                frame(b"\x84" + key + two + text("meta") + b"\x80" + text("more") + b"\xc0"),
                {},
            ),
            ("meta before payload", frame(b"\x83" + key + text("meta") + b"\x80" + two), {}),
            ("another third key", frame(b"\x83" + key + two + text("mata") + b"\x80"), {}),
            ("bytes as a key", frame(b"\x82\xc4\x04type" + text(GENERIC) + two), {}),
            ("type is a number", frame(b"\x82" + text("type") + b"\x01" + two), {}),
            ("meta is an array", with_meta(b"\x90"), {}),
            ("meta is nil", with_meta(b"\xc0"), {}),
            ("bytes after the body", frame(body(GENERIC, 1) + b"\xc0"), {}),
            ("cut off", frame(body(GENERIC, "abcdef")[:-1]), {}),
            ("a length lie in a text", raw(b"\xdb\xff\xff\xff\xff"), {}),
            ("a length lie in an array", raw(b"\xdd\xff\xff\xff\xff"), {}),
            ("a length lie in a map", raw(b"\xdf\x7f\xff\xff\xff"), {}),
            ("not UTF-8", raw(b"\xa2\xff\xfe"), {}),
            ("a lone surrogate", raw(b"\xa3\xed\xa0\x80"), {}),
            ("the byte 0xc1", raw(b"\xc1"), {}),
            ("an extension type", raw(b"\xd4\x01\x00"), {}),
            ("an empty extension", raw(b"\xc7\x00\x05"), {}),
            ("a timestamp", raw(b"\xd6\xff\x00\x00\x00\x00"), {}),
            (
                "an extension in meta",
                with_meta(b"\x82" + text("topic") + text("a") + text("x") + b"\xd4\x01\x00"),
                {},
            ),
            ("65 deep", raw(b"\x91" * 64 + b"\xc0"), {}),
            ("10 000 deep", raw(b"\x91" * 10_000 + b"\xc0"), {}),
            ("65 deep in maps", raw((b"\x81" + text("k")) * 64 + b"\xc0"), {}),
            ("a map as a key", raw(b"\x81\x80\xc0"), {}),
            ("topic is a number", with_meta(b"\x81" + text("topic") + b"\x01"), {}),
            ("priority 256", with_meta(b"\x81" + text("priority") + b"\xcd\x01\x00"), {}),
            ("priority -1", with_meta(b"\x81" + text("priority") + b"\xff"), {}),
            ("priority true", with_meta(b"\x81" + text("priority") + b"\xc3"), {}),
            ("a tag that is a number", with_meta(b"\x81" + text("tags") + b"\x91\x01"), {}),
            ("opening_id of 15 bytes", with_meta(b"\x81" + text("opening_id") + b"\xc4\x0f" + bytes(15)), {}),
            ("receipt is 1", with_meta(b"\x81" + text("receipt") + b"\x01"), {}),
        ],
        "BodyTypeMismatch": [
            ("another registered type", frame(body(REGISTRY[2], 1)), {}),
            ("an unregistered type", frame(body("observation.generic.v2", 1)), {}),
            ("upper case", frame(body("Observation.generic.v1", 1)), {}),
            ("a third party without vendor", frame(body("observation.acme.v1", {}), schema=0x8001), {}),
            (
                "a third party under our name",
                frame(body(GENERIC, {"vendor": "acme", "schema_hash": "00"}), schema=0x8001),
                {},
            ),
        ],
        "Incomplete": [
            ("nothing but a prefix", GOOD[:4], {}),
            ("one byte short", GOOD[:-1], {}),
            ("one byte short, and the stream ends", GOOD[:-1], {"end": True}),
            ("half a second frame", GOOD + GOOD[:80], {"accepted": 1}),
        ],
    }
    return [
        case(name, error, stream, extra) for error, cases in table.items() for name, stream, extra in cases
    ]


def accepted() -> list[dict[str, Any]]:
    again = frame(body(GENERIC, {"n": 1}, {"topic": "demo/one"}), trace=1)
    rows = [
        ("alive for one millisecond more", GOOD, {"now_ms": NOW + TTL - 1, "accepted": 1}),
        ("created in the future", GOOD, {"now_ms": 0, "accepted": 1}),
        ("an expiry of exactly 2^64-1", frame(body(GENERIC, 1), created=U64 - 1, ttl=1), {"accepted": 1}),
        ("the same id from two publishers", GOOD + GOOD, {"accepted": 2, "publishers": ["a", "b"]}),
        ("the same id in two traces", GOOD + again, {"accepted": 2}),
        ("64 deep", raw(NESTED_63.replace(b"\xc0", b"\x91\xc0")), {"accepted": 1}),
        ("a thousand arrays beside each other", raw(b"\xdc\x03\xe8" + b"\x90" * 1000), {"accepted": 1}),
        ("bytes that look like extensions", raw(b"\xc4\x03\xd4\xd5\xc1"), {"accepted": 1}),
        ("bytes that look like many containers", raw(b"\xc5\x01\x00" + b"\x91" * 256), {"accepted": 1}),
        (
            "an opening_id as integer",
            with_meta(b"\x81" + text("opening_id") + b"\xcf" + bytes(8)),
            {"accepted": 1},
        ),
        ("integer keys in a payload", raw(b"\x81\x01\x02"), {"accepted": 1}),
        ("a text twice as a key", raw(b"\x82\xa1a\x01\xd9\x01a\x02"), {"accepted": 1}),
        ("1, true and 1.0 as keys", raw(b"\x83\x01\x07\xc3\x08\xca\x3f\x80\0\0\x09"), {"accepted": 1}),
        ("a NaN twice as a key", raw(b"\x82" + 2 * (b"\xcb\x7f\xf8" + bytes(6) + b"\x01")), {"accepted": 1}),
        ("a key named __proto__", raw(b"\x81\xa9__proto__\x81\xa1x\x01"), {"accepted": 1}),
        ("a byte order mark in a text", raw(b"\xa4\xef\xbb\xbfx"), {"accepted": 1}),
    ]
    return [case(name, None, stream, extra) for name, stream, extra in rows]


def case(name: str, error: str | None, stream: bytes, extra: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if error is not None:
        made["error"] = error
    return {**made, "stream": stream.hex(), "now_ms": NOW, "accepted": 0, **extra}


def session_frames() -> list[tuple[str, int, Any, dict[str, Any] | None, dict[str, Any]]]:
    """What a session says to its server, and what a durable topic adds (docs/internals/session.md)."""
    said = {"protocol": 0, "build": "0.1.0", "client": "demo", "proof": None, "instance": bytes(range(32))}
    about = {"version": "1.2.0", "serves": ["demo/*"], "capabilities": ["draw"], "heartbeat_ms": 10_000}
    consume = {
        "action": "subscribe",
        "pattern": "durable/*",
        "durable": "books",
        "start": "first",
        "after": 7,
    }
    leave = {"action": "unsubscribe", "durable": "books", "forget": True}
    stamps = {"topic": "durable/one", "seq": 8, "publisher": "operator:1000", "consumer": "books"}
    done = {"receivers": 2, "seq": 8, "duplicate": False}
    return [
        ("a hello with an instance and claims", 100, {**said, **about}, None, {}),
        ("a durable consumer is taken up", 9, {"id": "2", **consume}, None, {}),
        ("a durable consumer acknowledges", 9, {"action": "ack", "durable": "books", "seq": 8}, None, {}),
        ("a durable consumer is given up for ever", 9, {"id": "3", **leave}, None, {}),
        ("a program announces itself anew", 9, {"id": "4", "action": "announce", **about}, None, {}),
        (
            "the receipt of a durable topic",
            2002,
            {"id": "5", "ok": True, "result": done},
            {"topic": "rlp/clients/0011223344556677/reply"},
            {},
        ),
        ("a delivery with the daemon's stamps", 1, {"n": 1}, stamps, {"msg_id": 9}),
    ]


def hellos() -> list[dict[str, Any]]:
    pairs = ((bytes(32), bytes(32)), (bytes(range(32)), bytes(range(32, 64))), (b"\xff" * 32, b"n" * 32))
    return [
        {
            "credential": credential.hex(),
            "nonce": nonce.hex(),
            "proof": blake3(b"runloop operator hello v0" + nonce, key=credential).hexdigest(),
        }
        for credential, nonce in pairs
    ]


def keyed() -> list[dict[str, Any]]:
    """BLAKE3's own inputs, of at most one chunk; its test_vectors.json has 0, 1, 1023 and 1024 of them."""
    key = b"whats the Elvish word for friend"
    return [
        {
            "input_len": length,
            "keyed_hash": blake3(bytes(at % 251 for at in range(length)), key=key).hexdigest(),
        }
        for length in (0, 1, 31, 57, 63, 64, 65, 127, 128, 129, 1023, 1024)
    ]


def addresses() -> list[dict[str, Any]]:
    """Texts, whether they are topics and patterns, and what patterns cover."""
    both = ["a", "rlp/ctrl", "agent/writer", "demo/one/two", "A.b_c:d#e@f+g-h/0", "x" * 255]
    covers = {
        "*": {"a": True, "a/b": True},
        "a/*": {"a": False, "a/b": True, "a/b/c": True, "ab/c": False},
        "a": {"a": True, "a/b": False},
    }
    wild = ["*", "a/*", "rlp/runs/*", "x" * 255 + "/*"]
    neither = ["", "/", "a/", "/a", "a//b", "a b", "a\n", "ö", "a*", "a/*/b", "*/a", "**", "a/**", "x" * 256]
    rows = [(text, True, True) for text in both] + [(text, False, True) for text in wild]
    rows += [(text, False, False) for text in [*neither, "./\u0000", "x" * 256 + "/*"]]
    return [
        {
            "text": text,
            "topic": topic,
            "pattern": pattern,
            **({"matches": covers[text]} if text in covers else {}),
        }
        for text, topic, pattern in rows
    ]


def artefacts() -> dict[Path, str]:
    """Every file of this directory that is written by this program."""
    made = {
        "golden": golden(),
        "errors": errors(),
        "accepted": accepted(),
        "hello": hellos(),
        "keyed": keyed(),
        "topics": addresses(),
    }
    return {
        HERE / f"{name}.json": "[\n"
        + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        + "\n]\n"
        for name, rows in made.items()
    }


def main(argv: list[str]) -> int:
    """Write the vectors, or with ``--check`` list the stale files and return 1."""
    stale = [
        (path, new)
        for path, new in artefacts().items()
        if not path.exists() or path.read_text("utf-8") != new
    ]
    for path, new in stale:
        if "--check" not in argv:
            path.write_text(new, encoding="utf-8")
        print(path.name)
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
