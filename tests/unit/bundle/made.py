"""Bundles, keys and trust for the tests of this folder: small, real, and the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runloop.bundle.archive import Package, unpack
from runloop.bundle.manifest import Manifest, parse_manifest
from runloop.bundle.signature import Envelope, SigningKey
from runloop.bundle.statement import BuildFacts, build_package, sign_package
from runloop.bundle.trust import Trust, Verdict, judge, parse_trust
from runloop.caps.policy import Policy, parse_policy

ACME = SigningKey.from_seed(b"a" * 32)
ACME_NEXT = SigningKey.from_seed(b"n" * 32)
EVIL = SigningKey.from_seed(b"e" * 32)
DEV = SigningKey.from_seed(b"d" * 32)
NOW = 1_800_000_000_000
"""2027-01-15."""

FILES = {
    "LICENSE": b"Apache-2.0\n",
    "agent.py": b"def handle(task, host):\n    return {'out': 1}\n",
    "manifest.toml": b'name = "acme_one"\nversion = "1.2.3"\n\n[ports.out.out]\n',
    "policy.caps": b'[capabilities]\ntime = true\nnet = ["api.example.org"]\n',
    "tools.json": b'{"version": 1, "tools": []}\n',
}
FACTS = BuildFacts(language="python", source_digest="0" * 64, tools={"rlp": "0.1.0"})


def manifest_of(files: Mapping[str, bytes] = FILES) -> Manifest:
    return parse_manifest(files["manifest.toml"])


def policy_of(files: Mapping[str, bytes] = FILES) -> Policy:
    return parse_policy(files["policy.caps"])


def signed(key: SigningKey = ACME, files: Mapping[str, bytes] = FILES) -> bytes:
    return sign_package(unpack(build_package(manifest_of(files), files, FACTS)), key)


def resigned(package: Package, payloads: list[bytes], key: SigningKey = ACME) -> Package:
    """The same files under other statements, properly signed."""
    return replace(package, envelopes=tuple(Envelope(payload=one).signed(key) for one in payloads))


def trusting(key: SigningKey = ACME, more: str = "", names: str = '["acme_*"]') -> Trust:
    return parse_trust(f'version = 1\n[anchors.acme]\nkeys = ["{key.public}"]\nnames = {names}\n{more}')


def judged(
    package: Package,
    trust: Trust | None = None,
    *,
    owner: str | None = None,
    now_ms: int = NOW,
    allow_dev: bool = False,
) -> Verdict:
    return judge(
        package,
        manifest_of(package.files),
        policy_of(package.files),
        trust=trusting() if trust is None else trust,
        now_ms=now_ms,
        owner_of_name=owner,
        dev_key=DEV.public,
        allow_dev=allow_dev,
    )
