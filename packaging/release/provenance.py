"""Say where a release came from: ``provenance.py FOLDER VERSION COMMIT KEY``.

Writes ``provenance.intoto.jsonl`` (SLSA provenance v1 in an in-toto Statement in a DSSE envelope, signed with
Ed25519) and ``provenance.pem`` (the public half) beside the artefacts of FOLDER. Knows: what a release was
built from. Does not know: how envelopes are made and signed (``runloop.bundle.signature``), or who believes
the key (the list of checksums vouches for it, and minisign for the list).

It names no machine, no path and no moment: the same commit and artefacts give the same bytes. What it earns
by SLSA is level 1: it was made by the script, on a machine of ours.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runloop.bundle.keyfile import read_key
from runloop.bundle.signature import Envelope
from runloop.bundle.statement import PROVENANCE, statement
from runloop.errors import RunloopError

ROOT = Path(__file__).parents[2]
BUILD_TYPE = "urn:runloop:release:v1"
BUILDER = "urn:runloop:builder:release"
LOCKED = ("requirements/deb.txt", "requirements/package.txt", "packaging/deb/debian/changelog")
"""What else decides what is built; told by digest, so that nobody needs the commit to compare."""


def main(folder: Path, version: str, commit: str, key_file: Path) -> None:
    key = read_key(key_file)
    artefacts = sorted(path for path in folder.iterdir() if path.is_file())
    if not artefacts:
        raise SystemExit(f"provenance: {folder} holds nothing to speak of")
    subject = [{"name": path.name, "digest": {"sha256": _sha256(path)}} for path in artefacts]
    envelope = Envelope(payload=statement(PROVENANCE, subject, _predicate(version, commit))).signed(key)
    (folder / "provenance.intoto.jsonl").write_bytes(envelope.to_line())
    public = key.private().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "provenance.pem").write_bytes(public)


def _predicate(version: str, commit: str) -> dict[str, Any]:
    locked = [{"name": name, "digest": {"sha256": _sha256(ROOT / name)}} for name in LOCKED]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"project": "runloop", "version": version},
            "internalParameters": {},
            "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": commit}}, *locked],
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"runloop": version}}},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    except RunloopError as error:
        sys.exit(f"provenance: {error.message}" + (f"; {error.hint}" if error.hint else ""))
