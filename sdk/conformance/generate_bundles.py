"""Write ``bundles.json``: one good bundle, and one archive for every named fault. ``--check`` tells if stale.

Shares no code with any implementation: headers are packed by hand below, JSON is written by ``json``,
Ed25519 and BLAKE3 are borrowed. Archives are mostly zeros, so bytes are written as a list in which a text is
hex and a number is that many zeros.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).resolve().parent
END = bytes(1024)
TYPE = "application/vnd.in-toto+json"
SEED = bytes(range(32))
OTHER_SEED = bytes(range(1, 33))


# --- tar, by hand ---------------------------------------------------------------------------------


def header(name: bytes, length: int, **fields: bytes) -> bytes:
    """A ustar header; every field can be overridden to make it wrong."""
    get = fields.get
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            get("mode", b"0000644\0"),
            get("uid", b"0000000\0"),
            get("gid", b"0000000\0"),
            get("size", b"%011o\0" % length),
            get("mtime", b"00000000000\0"),
            b"        ",
            get("type", b"0"),
            get("link", b"").ljust(100, b"\0"),
            get("magic", b"ustar\x0000"),
            get("user", b"").ljust(32, b"\0"),
            get("group", b"").ljust(32, b"\0"),
            get("devices", bytes(16)),
            get("prefix", b"").ljust(155, b"\0"),
            bytes(12),
        )
    )
    assert len(block) == 512
    return block[:148] + get("checksum", b"%06o\0 " % sum(block)) + block[156:]


def member(name: bytes, data: bytes = b"x", **fields: bytes) -> bytes:
    return header(name, len(data), **fields) + data + bytes(-len(data) % 512)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + END


def outer(content: bytes, attestations: bytes = b"") -> bytes:
    return tar(member(b"attestations.jsonl", attestations), member(b"bundle.tar", content))


# --- attestations, by hand ------------------------------------------------------------------------


def line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)


def key_id(seed: bytes) -> str:
    return "ed25519:" + hashlib.sha256(public(seed)).hexdigest()[:32]


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def envelope(payload: bytes, seed: bytes) -> bytes:
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(pae(payload))
    return line(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": TYPE,
            "signatures": [{"keyid": key_id(seed), "sig": base64.b64encode(signature).decode()}],
        }
    )


LONG = "schemas/" + "b" * 95 + ".json"
"""108 bytes: a header cuts it in two."""
FILES = {
    "LICENSE": b"Apache-2.0\n",
    "agent.py": b"def handle(task, host):\n    return {'out': 1}\n",
    "manifest.toml": b'name = "acme_one"\nversion = "1.2.3"\n\n[ports.out.out]\n',
    "policy.caps": b"[capabilities]\ntime = true\n",
    LONG: b"{}",
    "tools.json": b'{"version": 1, "tools": []}\n',
}


def digest() -> str:
    parts = [b"runloop bundle v0"]
    for name, data in sorted((name.encode(), data) for name, data in FILES.items()):
        parts += [name, data]
    return blake3(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def content() -> bytes:
    members = []
    for name in sorted(FILES, key=str.encode):
        prefix, _, last = name.rpartition("/") if name == LONG else ("", "", name)
        members.append(member(last.encode(), FILES[name], prefix=prefix.encode()))
    return tar(*members)


def statements(subject_sha256: str) -> list[bytes]:
    subject = [{"name": "bundle.tar", "digest": {"sha256": subject_sha256, "blake3": digest()}}]
    common = {"_type": "https://in-toto.io/Statement/v1", "subject": subject}
    named = {"name": "acme_one", "version": "1.2.3", "variant": "default"}
    return [
        line(
            {
                **common,
                "predicateType": "urn:runloop:bundle:v1",
                "predicate": {**named, "bundleDigest": digest(), "minRunloop": "0.1.0"},
            }
        ),
        line(
            {
                **common,
                "predicateType": "https://slsa.dev/provenance/v1",
                "predicate": {
                    "buildDefinition": {
                        "buildType": "urn:runloop:build:v1",
                        "externalParameters": {**named, "language": "python"},
                        "internalParameters": {"tools": {}},
                        "resolvedDependencies": [{"name": "source", "digest": {"blake3": "0" * 64}}],
                    },
                    "runDetails": {"builder": {"id": "urn:runloop:builder:rlp", "version": {"runloop": ""}}},
                },
            }
        ),
    ]


def good(seed: bytes = SEED) -> bytes:
    tar_bytes = content()
    lines = [envelope(payload, seed) for payload in statements(hashlib.sha256(tar_bytes).hexdigest())]
    return outer(tar_bytes, b"".join(one + b"\n" for one in lines))


# --- the vectors ----------------------------------------------------------------------------------


def refused() -> list[dict[str, Any]]:
    """Archives and the fault each must be refused with, at the first fault."""
    a, b = member(b"a"), member(b"b")
    whole = outer(tar(a, b))
    rows: list[tuple[str, str, bytes]] = [
        ("archive.truncated", "cut in a header", whole[:700]),
        ("archive.truncated", "a declared size that is not there", outer(header(b"a", 4096) + bytes(1024))),
        ("archive.truncated", "no end mark", outer(a)),
        ("archive.truncated", "half an end mark", outer(a + bytes(512))),
        ("archive.checksum", "a turned bit in a header", outer(tar(member(b"a", checksum=b"000001\0 ")))),
        ("archive.format", "old GNU magic", outer(tar(member(b"a", magic=b"ustar  \0")))),
        ("archive.header", "another mode", outer(tar(member(b"a", mode=b"0000755\0")))),
        ("archive.header", "a user id", outer(tar(member(b"a", uid=b"0001750\0")))),
        ("archive.header", "a time", outer(tar(member(b"a", mtime=b"14712345670\0")))),
        ("archive.header", "a user name", outer(tar(member(b"a", user=b"root")))),
        ("archive.header", "a link name on a file", outer(tar(member(b"a", link=b"/etc/passwd")))),
        ("archive.header", "bytes behind the name", outer(tar(member(b"a\0hidden")))),
        ("archive.header", "a prefix that is not needed", outer(tar(member(b"b", prefix=b"a")))),
        ("archive.padding", "data behind a file", outer(tar(header(b"a", 1) + b"x" + b"y" * 511))),
        ("archive.padding", "a record of zeros at the end", outer(tar(a) + bytes(8192))),
        ("archive.appended", "a second archive", whole + whole),
        ("archive.appended", "a member behind half an end mark", outer(a + bytes(512) + b + END)),
        ("archive.symlink", "a symbolic link", outer(tar(member(b"a", b"", type=b"2", link=b"/etc/passwd")))),
        ("archive.hardlink", "a hard link", outer(tar(a, member(b"b", b"", type=b"1", link=b"a")))),
        ("archive.device", "a character device", outer(tar(member(b"a", b"", type=b"3")))),
        ("archive.device", "a block device", outer(tar(member(b"a", b"", type=b"4")))),
        ("archive.fifo", "a named pipe", outer(tar(member(b"a", b"", type=b"6")))),
        ("archive.directory", "a directory", outer(tar(member(b"a/", b"", type=b"5")))),
        ("archive.directory", "a directory of the oldest kind", outer(tar(member(b"a/", b"")))),
        ("archive.pax", "a pax header", outer(tar(member(b"p", b"11 path=b\n", type=b"x"), a))),
        ("archive.pax", "a global pax header", outer(tar(member(b"p", b"11 size=9\n", type=b"g"), a))),
        ("archive.gnu", "a GNU long name", outer(tar(member(b"././@LongLink", b"b", type=b"L"), a))),
        ("archive.gnu", "a binary size", outer(tar(header(b"a", 0, size=b"\x80" + b"\xff" * 11)))),
        ("archive.sparse", "a sparse file", outer(tar(member(b"a", type=b"S")))),
        ("archive.type", "a contiguous file", outer(tar(member(b"a", type=b"7")))),
        ("archive.type", "the oldest type of a file", outer(tar(member(b"a", type=b"\0")))),
        ("archive.traversal", "up and out", outer(tar(member(b"../a")))),
        ("archive.traversal", "up in the middle", outer(tar(member(b"a/../../b")))),
        ("archive.traversal", "up in the prefix", outer(tar(member(b"b", prefix=b"..")))),
        ("archive.traversal", "an empty part", outer(tar(member(b"a//b")))),
        ("archive.absolute", "from the root", outer(tar(member(b"/etc/cron.d/a")))),
        ("archive.backslash", "a path of another system", outer(tar(member(b"..\\a")))),
        ("archive.drive", "a drive letter", outer(tar(member(b"C:a")))),
        ("archive.name", "no UTF-8", outer(tar(member(b"\xff")))),
        ("archive.name", "an escape sequence", outer(tar(member(b"a\x1b[2J")))),
        ("archive.name", "reversed reading order", outer(tar(member("a\u202ebat.py".encode())))),
        ("archive.name", "no name", outer(tar(member(b"")))),
        ("archive.duplicate", "the same name again", outer(tar(a, member(b"a", b"y")))),
        ("archive.case", "upper and lower case", outer(tar(member(b"A"), a))),
        ("archive.case", "directories that differ by case", outer(tar(member(b"A/x"), member(b"a/y")))),
        ("archive.unicode", "decomposed", outer(tar(member("e\u0301".encode())))),
        ("archive.unicode", "a ligature beside its letters", outer(tar(member(b"fi"), LIGATURE))),
        ("archive.overlap", "a file that is a directory, too", outer(tar(a, member(b"a/b")))),
        ("archive.order", "files out of order", outer(tar(b, a))),
        ("archive.order", "the two members exchanged", tar(
            member(b"bundle.tar", tar(a)), member(b"attestations.jsonl", b""))),
        ("archive.file_size", "a declared terabyte", outer(tar(header(b"a", 0, size=b"77777777777\0")))),
        ("archive.total_size", "more than all may hold", outer(tar(*(member(n, b"z" * 512) for n in NAMES)))),
        ("archive.file_count", "more files than allowed", outer(tar(*(member(n, b"") for n in MANY)))),
        ("archive.members", "nothing inside", END),
        ("archive.members", "a third member", tar(member(b"attestations.jsonl", b""), member(b"bundle.sh"))),
        ("archive.attestations", "a line that is none", outer(tar(a), b"{}\n")),
        ("archive.attestations", "an unended line", outer(tar(a), envelope(b"{}", SEED))),
        ("archive.attestations", "spaces in the JSON", outer(
            tar(a), envelope(b"{}", SEED).replace(b",", b", ") + b"\n")),
        ("archive.attestations", "two signatures", outer(tar(a), _twice(envelope(b"{}", SEED)) + b"\n")),
    ]  # fmt: skip
    return [
        {"error": code, "name": name, "bounds": BOUNDS.get(code, {}), "archive": packed(data)}
        for code, name, data in rows
    ]


LIGATURE = member("\ufb01".encode())
NAMES = (b"a", b"b", b"c", b"d", b"e")
MANY = (b"a", b"b", b"c", b"d", b"e", b"f")
BOUNDS = {
    "archive.total_size": {"files": 5, "file_bytes": 512, "total_bytes": 2048},
    "archive.file_count": {"files": 5, "file_bytes": 512, "total_bytes": 2048},
}
"""Lower bounds a reader is given, so that the vectors stay small."""


def _twice(text: bytes) -> bytes:
    value = json.loads(text)
    value["signatures"] *= 2
    return line(value)


def packed(data: bytes) -> list[str | int]:
    """Hex, and a number for that many zeros."""
    parts: list[str | int] = []
    for zeros, rest in re.findall(rb"(\x00{16,})|((?:(?!\x00{16})[\s\S])+)", data):
        parts.append(len(zeros) if zeros else rest.hex())
    return parts


def vectors() -> dict[str, Any]:
    tar_bytes = content()
    return {
        "good": {
            "archive": packed(good()),
            "files": {name: data.decode() for name, data in FILES.items()},
            "bundle_digest": digest(),
            "tar_sha256": hashlib.sha256(tar_bytes).hexdigest(),
            "public_key": "ed25519:" + base64.b64encode(public(SEED)).decode(),
            "key_id": key_id(SEED),
            "pae": [pae(payload).hex() for payload in statements(hashlib.sha256(tar_bytes).hexdigest())],
        },
        "resigned": {"archive": packed(good(OTHER_SEED)), "key_id": key_id(OTHER_SEED)},
        "refused": refused(),
    }


def text() -> str:
    return json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    path = HERE / "bundles.json"
    if "--check" in arguments:
        return 0 if path.is_file() and path.read_text(encoding="utf-8") == text() else 1
    path.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
