"""The inventory of a bundle: a CycloneDX 1.6 document, deterministic to the byte.

Knows: which parts a bundle has (its files, what others wrote of it, the shipped component that executes it)
and how CycloneDX names them. Does not know: how the parts were found (the build says), or whether one of them
has a hole. No time, no serial number, no path: the same bundle has the same inventory everywhere. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from runloop.bundle.manifest import Manifest
from runloop.bundle.statement import BuildFacts, Dependency
from runloop.digest import canonical

__all__ = ["SBOM_FILE", "sbom"]

SBOM_FILE = "sbom.cdx.json"
"""Its place in every bundle."""


def sbom(manifest: Manifest, files: Mapping[str, bytes], facts: BuildFacts) -> bytes:
    """The document, canonical JSON and a line feed. ``files`` are the bundle's, with or without it."""
    agent = f"agent:{manifest.name}@{manifest.version}"
    parts = [
        *(_dependency(one) for one in sorted(facts.dependencies, key=lambda it: (it.name, it.version))),
        *([_runner(facts)] if facts.runner_digest else []),
        *(_file(path, files[path]) for path in sorted(files, key=str.encode) if path != SBOM_FILE),
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _agent(manifest, agent)},
        "components": parts,
        "dependencies": [
            {"ref": agent, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    return canonical(document) + b"\n"


def _agent(manifest: Manifest, ref: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "application",
        "bom-ref": ref,
        "name": manifest.name,
        "version": manifest.version,
        "properties": [
            {"name": "runloop:variant", "value": manifest.variant},
            {"name": "runloop:language", "value": manifest.language},
        ],
    }
    return {**made, "description": manifest.description} if manifest.description else made


def _runner(facts: BuildFacts) -> dict[str, Any]:
    return {
        "type": "platform",
        "bom-ref": f"runner:{facts.runner_digest}",
        "name": "runloop-runner",
        "version": facts.runner_digest[:16],
        "hashes": [{"alg": "BLAKE3", "content": facts.runner_digest}],
    }


def _dependency(one: Dependency) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": one.purl or f"library:{one.name}@{one.version}",
        "name": one.name,
        "version": one.version,
    }
    if one.purl:
        made["purl"] = one.purl
    if one.sha256:
        made["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    return made


def _file(path: str, data: bytes) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{path}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}],
    }
