"""Complete the package's SBOM, or say what it lacks: ``sbom.py SBOM LOCK INSIDE SITE VERSION ARCHITECTURE``.

SBOM is what cyclonedx-py wrote of the environment; it is written again in place. Added: the package itself,
as what the SBOM is about; the shipped runners by digest, with what is inside them (``inside.toml``); a
reference to the SBOM of its own that a compiled distribution brought along. Stops with a list when a
distribution of LOCK is missing, has another version, or when one is there that nobody locked. The same
arguments give the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

OURS = "runloop"
PREFIX = "/usr/lib/runloop/lib/python3.11/site-packages"
LOCKED = re.compile(r"^[A-Za-z0-9][^\s=]*==[^\\\n]+", re.M)
THERE = {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "python_version": "3.11"}


def normal(name: str) -> str:
    """The name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Name -> version of every distribution of a hash-locked requirements file that Debian's Python takes."""
    found = (Requirement(match[0].strip()) for match in LOCKED.finditer(text))
    return {
        normal(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate(THERE)
    }


def faults(sbom: Mapping[str, Any], lock: Mapping[str, str]) -> Iterator[str]:
    """What is missing, other or too much."""
    there = {normal(one["name"]): one["version"] for one in sbom["components"] if normal(one["name"]) != OURS}
    for name in sorted(lock.keys() | there.keys()):
        if name not in there:
            yield f"{name} {lock[name]} is locked, and not in the SBOM"
        elif name not in lock:
            yield f"{name} {there[name]} is in the SBOM, and nobody locked it"
        elif there[name] != lock[name]:
            yield f"{name} is {there[name]} in the SBOM, and {lock[name]} is locked"


def _licences(spdx: str) -> list[dict[str, Any]]:
    return [{"expression": spdx}]


def _runners(inside: Path, site: Path) -> Iterator[dict[str, Any]]:
    rows = tomllib.loads(inside.read_text(encoding="utf-8"))["component"]
    for runner in dict.fromkeys(row["runner"] for row in rows):
        pin = tomllib.loads(
            (site / "runloop" / "_shipped" / runner / "runner.toml").read_text(encoding="utf-8")
        )
        parts = [
            {
                "bom-ref": f"{runner}/{row['name']}",
                "licenses": _licences(row["licence"]),
                "name": row["name"],
                "type": "library",
                **({"version": row["version"]} if "version" in row else {}),
            }
            for row in rows
            if row["runner"] == runner
        ]
        yield {
            "bom-ref": runner,
            "components": parts,
            "description": "the component that executes agents, unpacked from runner.wasm.xz",
            "hashes": [{"alg": "SHA-256", "content": pin["sha256"]}],
            "name": f"runloop-{runner}",
            "type": "application",
        }


def complete(sbom: dict[str, Any], inside: Path, site: Path, version: str, architecture: str) -> None:
    """Add what cyclonedx-py cannot see."""
    for one in sbom["components"]:
        stem = re.sub(r"[-.]+", "_", one["name"]).lower()
        for info in sorted(site.glob("*.dist-info")):
            if re.sub(r"[-.]+", "_", info.name.partition("-")[0]).lower() == stem:
                one.setdefault("externalReferences", []).extend(
                    {"type": "bom", "url": f"file://{PREFIX}/{path.relative_to(site)}"}
                    for path in sorted(info.glob("sboms/*.json"))
                )
    sbom["components"].extend(_runners(inside, site))
    sbom["metadata"]["component"] = {
        "bom-ref": f"pkg:deb/{OURS}@{version}?arch={architecture}",
        "licenses": _licences("Apache-2.0"),
        "name": OURS,
        "purl": f"pkg:deb/{OURS}@{version}?arch={architecture}",
        "type": "application",
        "version": version,
    }


def main(file: Path, lock: Path, inside: Path, site: Path, version: str, architecture: str) -> int:
    sbom = json.loads(file.read_text(encoding="utf-8"))
    wrong = list(faults(sbom, locked(lock.read_text(encoding="utf-8"))))
    if wrong:
        print("sbom: it is not what was locked:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    complete(sbom, inside, site, version, architecture)
    file.write_text(json.dumps(sbom, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:5]), *sys.argv[5:7]))
