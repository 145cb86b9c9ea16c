"""Bundle files made in memory, signed by whoever a test wants, for everything that installs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runloop.bundle.archive import archive_name, unpack
from runloop.bundle.digest import bundle_digest
from runloop.bundle.index import IndexEntry, IndexRevocation, build_index
from runloop.bundle.manifest import parse_manifest
from runloop.bundle.signature import SigningKey
from runloop.bundle.statement import BuildFacts, build_package, sign_package

ACME = SigningKey.from_seed(bytes(range(32)))
EVE = SigningKey.from_seed(bytes(range(32, 64)))
DAY_MS = 86_400_000

MANIFEST = """\
name = "{name}"
version = "{version}"
variant = "{variant}"
description = "{description}"
language = "{language}"
entrypoint = "{entrypoint}"
ops = [{ops}]
min_runloop = "{min_runloop}"
[ports.in.text]
type = "string"
[ports.out.word]
type = "string"
required = true
"""
CODE = """\
from runloop.agent import handler


@handler
def handle(task, host):
    return {{"word": "{name} {version}"}}
"""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bundle file."""

    name: str
    version: str
    file_name: str
    data: bytes
    digest: str
    """The bundle digest."""

    def write(self, folder: Path) -> Path:
        """The file, in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        path.write_bytes(self.data)
        return path

    def entry(self, *, blake3: str | None = None) -> IndexEntry:
        """How an index lists it."""
        import hashlib

        return IndexEntry(
            name=self.name,
            version=self.version,
            variant="default",
            file=self.file_name,
            sha256=hashlib.sha256(self.data).hexdigest(),
            blake3=blake3 or self.digest,
        )


def build(
    version: str = "1.0.0",
    *,
    name: str = "acme_echo",
    variant: str = "default",
    ops: Sequence[str] = (),
    caps: str = "",
    key: SigningKey | None = ACME,
    min_runloop: str = "0.1.0",
    description: str = "Says one word",
    files: Mapping[str, bytes] | None = None,
    language: str = "python",
    entrypoint: str = "agent:handle",
) -> Built:
    """A bundle of a small Python agent; ``key`` None leaves it unsigned."""
    manifest_text = MANIFEST.format(
        name=name,
        version=version,
        variant=variant,
        description=description,
        ops=", ".join(f'"{op}"' for op in ops),
        min_runloop=min_runloop,
        language=language,
        entrypoint=entrypoint,
    )
    content = {
        "manifest.toml": manifest_text.encode(),
        "policy.caps": f"[capabilities]\n{caps}".encode(),
        "tools.json": b'{"version": 1, "tools": []}\n',
        "README.md": b"# Echo\n",
        **({"agent.py": CODE.format(name=name, version=version).encode()} if language == "python" else {}),
        **(files or {}),
    }
    manifest = parse_manifest(content["manifest.toml"])
    facts = BuildFacts(language="python", source_digest="0" * 64)
    data = build_package(manifest, content, facts)
    if key is not None:
        data = sign_package(unpack(data), key)
    return Built(
        name=name,
        version=version,
        file_name=archive_name(manifest),
        data=data,
        digest=bundle_digest(content),
    )


def index_of(
    *bundles: Built,
    serial: int = 1,
    expires_ms: int,
    key: SigningKey = ACME,
    revoked: Sequence[IndexRevocation] = (),
) -> bytes:
    """The bytes of an ``index.jsonl``."""
    return build_index(
        serial=serial,
        expires_ms=expires_ms,
        bundles=[built.entry() for built in bundles],
        key=key,
        revoked=revoked,
    )


def trust_toml(publisher: str = "acme", key: SigningKey = ACME, names: Sequence[str] = ("acme_*",)) -> str:
    """A trust file with one anchor."""
    listed = ", ".join(f'"{name}"' for name in names)
    return f'version = 1\n\n[anchors.{publisher}]\nkeys = ["{key.public}"]\nnames = [{listed}]\n'
