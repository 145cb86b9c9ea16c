"""The documentation keeps pace: generated pages are fresh, nothing is left out, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlp.table import COMMANDS, GROUPS
from runloop.config import PROVIDER_RULES, RULES
from runloop.events import KINDS
from runloop.exits import Exit
from runloop.ops import OPS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def generator() -> dict[str, Any]:
    return runpy.run_path(str(REFERENCE / "generate.py"))


def lines_of(name: str) -> list[str]:
    return (REFERENCE / name).read_text(encoding="utf-8").splitlines()


def headings(name: str) -> set[str]:
    return {line.lstrip("# ") for line in lines_of(name) if line.startswith("#")}


# --- the reference is complete --------------------------------------------------------------------


def test_the_generated_pages_are_fresh() -> None:
    stale = [
        path.name for path, text in generator()["pages"]().items() if path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "python docs/reference/generate.py"


def test_a_changed_page_is_noticed_and_not_overwritten(tmp_path: Path) -> None:
    found = generator()
    page = tmp_path / "config.md"
    page.write_text("old")
    found["main"].__globals__["pages"] = lambda: {page: "new"}
    assert found["main"](["--check"]) == 1
    assert page.read_text() == "old"
    assert found["main"]([]) == 0
    assert page.read_text() == "new"
    assert found["main"](["--check"]) == 0


@pytest.mark.parametrize("key", [*RULES, *PROVIDER_RULES])
def test_every_configuration_key_has_a_line(key: str) -> None:
    rows = [line for line in lines_of("config.md") if line.startswith(f"| `{key}` |")]
    (row,) = rows
    assert {**RULES, **PROVIDER_RULES}[key].doc in row


def test_every_command_has_its_page() -> None:
    wanted = {f"`rlp {path}`" for path in (*GROUPS, *(command.path for command in COMMANDS))}
    assert wanted - headings("cli.md") == set()


def test_every_exit_code_has_a_line() -> None:
    shown = {line.split("|")[1].strip() for line in lines_of("cli.md") if re.match(r"\| \d+ \|", line)}
    assert shown == {str(code.value) for code in Exit}


def test_every_kind_of_event_is_documented_with_all_its_fields() -> None:
    page = (REFERENCE / "events.md").read_text(encoding="utf-8")
    for kind, payload in KINDS.items():
        section = page.partition(f"### `{kind}`\n")[2].partition("\n##")[0]
        assert payload.__doc__ and payload.__doc__.split()[0] in section, kind
        missing = [field for field in payload.__struct_fields__ if f"| `{field}` |" not in section]
        assert missing == [], kind


def test_every_host_call_is_documented_with_its_right_and_all_its_arguments() -> None:
    page = (REFERENCE / "ops.md").read_text(encoding="utf-8")
    for op in OPS.values():
        section = page.partition(f"## `{op.name}`\n")[2].partition("\n## ")[0]
        right = f"capability `{op.capability}`" if op.capability else "no capability"
        assert f"Effect `{op.effect}`, {right}." in section, op.name
        assert "Answer: " in section, f"{op.name}: say what a guest gets back"
        missing = [field for field in op.args.__struct_fields__ if f"| `{field}` |" not in section]
        assert missing == [], op.name


# --- links ----------------------------------------------------------------------------------------


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, check=True, timeout=60,
    ).stdout.decode()  # fmt: skip
    return [ROOT / name for name in sorted(filter(None, listed.split("\0"))) if (ROOT / name).is_file()]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Where a renderer puts the headings: lower case, words joined by dashes, punctuation dropped."""
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE):
        bare = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = 0
        while (slug := f"{bare}-{number}" if number else bare) in found:
            number += 1
        found.add(slug)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/internals/architecture.md"]
)
def test_every_file_that_is_named_exists(page: str) -> None:
    """Paths in backticks with a folder and an ending: ``tests/requirements.py``, ``runloop/ops.py``."""
    roots = (ROOT, ROOT / "sdk" / "python", ROOT / "docs")
    named = re.findall(r"`((?:[\w.-]+/)+[\w-]+\.\w+)`", (ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


# --- words ----------------------------------------------------------------------------------------


def glossary() -> tuple[set[str], set[str]]:
    """The glossary's nouns, and the words it wants to see replaced by them; lower case."""
    nouns: set[str] = set()
    avoided: set[str] = set()
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines():
        nouns |= {bold.lower() for bold in re.findall(r"\*\*([\w ]+?)s?\*\*", line)}
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("**"):
            avoided |= {word.strip().lower() for word in cells[2].split(",")}
    return nouns, avoided - nouns


def test_the_glossary_is_read_as_it_is_meant() -> None:
    nouns, avoided = glossary()
    assert {"node", "run", "event", "message", "action"} <= nouns
    assert {"step", "job", "plugin", "log entry"} <= avoided
    assert not avoided & {"event", "message", "action"}, "they are nouns of their own"


def test_the_help_says_nothing_the_glossary_has_a_better_word_for() -> None:
    _, avoided = glossary()
    text = (ROOT / "rlp" / "_help.txt").read_text(encoding="utf-8").lower()
    assert [word for word in sorted(avoided) if re.search(rf"\b{word}s?\b", text)] == []
