"""The SBOM has every distribution of the lock in its version, the package, and what is inside the runners."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.deb.conftest import DEBIAN

Step = Callable[[str], ModuleType]
LOCK = """# made by hand
One.Two==1.0 \\
    --hash=sha256:00
    # via runloop
three==3.1.post1 ; python_full_version < '3.13' \\
    --hash=sha256:00
four==4 ; sys_platform == 'win32' \\
    --hash=sha256:00
"""


def sbom(**versions: str) -> dict[str, Any]:
    rows = [{"name": name, "version": version, "type": "library"} for name, version in versions.items()]
    return {"components": rows, "metadata": {}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What the step looks into: the pins of the runners, and a distribution that brought an SBOM along."""
    for runner in ("runner", "runner-js"):
        folder = tmp_path / "site" / "runloop" / "_shipped" / runner
        folder.mkdir(parents=True)
        (folder / "runner.toml").write_text(f'sha256 = "{"a" * 64}"\n')
    own = tmp_path / "site" / "One_Two-1.0.dist-info" / "sboms"
    own.mkdir(parents=True)
    (own / "rust.json").write_text("{}")
    return tmp_path / "site"


def complete(step: Step, site: Path, text: dict[str, Any]) -> tuple[int, str]:
    file, lock = site.parent / "sbom.json", site.parent / "lock.txt"
    file.write_text(json.dumps(text))
    lock.write_text(LOCK)
    code = step("sbom").main(file, lock, DEBIAN / "inside.toml", site, "0.1.0~deb12u1", "arm64")
    return code, file.read_text()


@pytest.mark.requirement("I8.sbom.1")
def test_it_is_about_the_package_and_names_what_no_package_index_knows(step: Step, site: Path) -> None:
    given = sbom(**{"one-two": "1.0", "three": "3.1.post1", "runloop": "0.1.0"})
    code, text = complete(step, site, given)
    assert code == 0
    assert complete(step, site, given) == (0, text), "the same bytes twice"
    told = json.loads(text)
    assert told["metadata"]["component"]["purl"] == "pkg:deb/runloop@0.1.0~deb12u1?arch=arm64"
    runners = {one["name"]: one for one in told["components"] if one["type"] == "application"}
    assert set(runners) == {"runloop-runner", "runloop-runner-js"}
    assert runners["runloop-runner"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert {"CPython", "SQLite"} <= {part["name"] for part in runners["runloop-runner"]["components"]}
    assert "QuickJS-ng" in {part["name"] for part in runners["runloop-runner-js"]["components"]}
    brought = next(one for one in told["components"] if one["name"] == "one-two")["externalReferences"]
    assert [one["url"].rpartition("/")[2] for one in brought] == ["rust.json"]


@pytest.mark.requirement("I8.sbom.1")
@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"one-two": "1.0"}, "three 3.1.post1 is locked, and not in the SBOM"),
        ({"one-two": "1.1", "three": "3.1.post1"}, "one-two is 1.1 in the SBOM, and 1.0 is locked"),
        (
            {"one-two": "1.0", "three": "3.1.post1", "five": "5"},
            "five 5 is in the SBOM, and nobody locked it",
        ),
        (
            {"one-two": "1.0", "three": "3.1.post1", "four": "4"},
            "four 4 is in the SBOM, and nobody locked it",
        ),
    ],
    ids=["missing", "another version", "too much", "of another system"],
)
def test_what_is_not_what_was_locked_is_no_sbom(
    step: Step, site: Path, there: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = sbom(**there)
    code, text = complete(step, site, given)
    assert code == 1
    assert said in capsys.readouterr().err
    assert json.loads(text) == given, "untouched"
