"""Write what is run on every architecture, and executed again on the others: ``prepare.py FOLDER``.

An opening with four agents, and nothing in it but what processors and compilers are free to do in their own
way: a component that makes NaNs in a dozen ways and gives their bits, and two Python agents and one in
JavaScript that show floats, orders, hashes and texts, and use up fuel. None of them asks anybody anything:
what they give can differ by the machine alone. ``nan`` and ``probe`` are the suite's own, so it is started
with the checkout in its path: ``PYTHONPATH=. .venv/bin/python packaging/tests/architectures/prepare.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.integration.hostile.conftest import MANIFEST
from tests.integration.hostile.corpus import nan_bits
from tests.integration.hostile.test_surroundings import MANIFEST as PROBE_MANIFEST
from tests.integration.hostile.test_surroundings import PROBE

HERE = Path(__file__).parent
OPENING = """version: 0
name: architectures
nodes:
  - {id: nan, use: "agent:nan"}
  - {id: probe, use: "agent:probe"}
  - {id: numbers, use: "agent:numbers"}
  - {id: script, use: "agent:script"}
"""


def agents() -> dict[str, tuple[str, str, bytes]]:
    """Agent -> its manifest, the name of its code, the code."""
    nan = MANIFEST.format(name="nan", ops=json.dumps([]), guest_ms=20_000, calls=1)
    numbers = PROBE_MANIFEST.replace('"probe"', '"numbers"')
    script = (
        PROBE_MANIFEST.replace('"probe"', '"script"')
        .replace('"python"', '"javascript"')
        .replace('"agent:handle"', '"agent.js"')
    )
    return {
        "nan": (nan, "agent.wasm", nan_bits()),
        "probe": (PROBE_MANIFEST, "agent.py", PROBE.encode()),
        "numbers": (numbers, "agent.py", (HERE / "numbers" / "agent.py").read_bytes()),
        "script": (script, "agent.js", (HERE / "script" / "agent.js").read_bytes()),
    }


def main(folder: Path) -> None:
    for name, (manifest, code, text) in agents().items():
        home = folder / "agents" / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "manifest.toml").write_text(manifest, encoding="utf-8")
        (home / "policy.caps").write_text("[capabilities]\n", encoding="utf-8")
        (home / "tools.json").write_text('{"version": 1, "tools": []}\n', encoding="utf-8")
        (home / "README.md").write_text(f"# {name}\n", encoding="utf-8")
        (home / code).write_bytes(text)
    (folder / "architectures.yaml").write_text(OPENING, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
