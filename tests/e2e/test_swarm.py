"""The code swarm: readers, a planner and a patcher on one tree at the same time, by messages alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.events import HostcallDelivered, MemoryUpdated, MessagePosted
from tests.e2e.test_docs import Reader
from tests.e2e.test_market import orphans, outputs
from tests.home import EXAMPLES, ROOT, Home

AGENTS = ("swarm_reader", "swarm_planner", "swarm_patcher")
TODO = re.compile(r"# TODO\((?:rename|remove|type)\)")


@pytest.fixture(scope="module")
def swarm(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home and one daemon; a tree and a workspace that the agents were granted."""
    path, place = tmp_path_factory.mktemp("s"), tmp_path_factory.mktemp("swarm")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    shutil.copytree(EXAMPLES / "swarm" / "tree", place / "tree")
    (place / "patches").mkdir()
    for name in AGENTS:
        shutil.copytree(EXAMPLES / "agents" / name, path / "agents" / name)
        policy = path / "agents" / name / "policy.caps"
        policy.write_text(policy.read_text().replace("/srv/swarm", str(place)))
    (path / "openings").mkdir()
    shutil.copy(EXAMPLES / "swarm" / "code_swarm.yaml", path / "openings")
    with Home(path) as home:
        home.env |= {"RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS": "true", "SWARM": str(place)}
        yield home


def test_the_page_does_what_it_says(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(ROOT / "docs" / "howto" / "code-swarm.md")


def work(home: Home, workspace: str = "patches") -> tuple[str, dict[str, Any]]:
    place = home.env["SWARM"]
    flags = ["-p", f"tree={place}/tree", "-p", f"workspace={place}/{workspace}", "--json", "--no-input"]
    return outputs(home.rlp("run", "code_swarm", *flags).check())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.requirement("I5.swarm.1", "I5.swarm.2", "I5.swarm.3", "I5.swarm.4")
def test_the_swarm_patches_while_it_reads_and_its_diffs_apply(
    swarm: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Path(swarm.env["SWARM"])
    before = contents(place / "tree")
    run, given = work(swarm)
    report = given["planner"]["report"]
    assert contents(place / "tree") == before
    assert report["complete"] and not report["unanswered"] and not report["undone"]
    assert report["files"] == sum(name.endswith(".py") for name in before)
    refused = {(one["path"], one["kind"]): one["why"] for one in report["refused"]}
    assert refused == {
        ("depot/labels.py", "rename"): "WIDTH is also a name in depot/io/files.py",
        ("depot/pricing.py", "type"): "the file does not know Percent",
        ("tests/test_stock.py", "remove"): "everything it brings in is used",
    }
    asked = sum(len(TODO.findall(text.decode())) for text in before.values())
    assert len(report["done"]) == asked - len(refused)

    # Each diff applies, and does what it was asked for.
    copy = tmp_path_factory.mktemp("copy") / "tree"
    shutil.copytree(place / "tree", copy)
    diffs = sorted((place / "patches").iterdir())
    assert [path.name for path in diffs] == sorted(one["diff"] for one in report["patched"])
    for diff in diffs:
        subprocess.run(["git", "apply", "--verbose", str(diff)], cwd=copy, check=True, capture_output=True)
    after = {name: text.decode() for name, text in contents(copy).items()}
    assert sum(len(TODO.findall(text)) for text in after.values()) == len(refused)
    for name, text in after.items():
        ast.parse(text, name)
    assert "tmp" not in after["depot/orders.py"] and 'print(f"{remaining} of' in after["depot/orders.py"]
    assert "from decimal import ROUND_HALF_UP, Decimal\n" in after["depot/pricing.py"]
    assert "import string\n" in after["depot/io/scan.py"] and "sys" not in after["depot/io/scan.py"]
    assert "def put(self, item: str, count: int = 1) -> None:\n" in after["depot/stock.py"]
    tests = [sys.executable, "-B", "-m", "unittest", "discover", "-s", "tests"]
    subprocess.run(tests, cwd=copy, check=True, capture_output=True)

    overlap(swarm, run)
    words(swarm, run)
    memory(swarm, run)
    assert orphans(swarm, run) == []
    shutil.rmtree(place / "patches")
    (place / "patches").mkdir()
    assert swarm.rlp("replay", run, "--json").check().json["identical"] is True
    assert not list((place / "patches").iterdir())


def overlap(home: Home, run: str) -> None:
    """The patcher wrote before any reader was through, and the planner asked for it before that."""
    at: dict[str, int] = {}
    for event in home.events():
        if event.run != run:
            continue
        told = event.payload
        if isinstance(told, HostcallDelivered) and told.op == "fs.write":
            assert told.node == "patcher"
            at.setdefault("written", event.id)
        if isinstance(told, MessagePosted) and told.to == "node/patcher":
            at.setdefault("asked", event.id)
        if event.kind == "node.finished" and told.node.startswith("reader["):  # type: ignore[attr-defined]
            at.setdefault("read", event.id)
    assert at["asked"] < at["written"] < at["read"]


def words(home: Home, run: str) -> None:
    """Everything that one agent heard of another is a message in the ledger."""
    posts = {
        event.payload.message: event.payload
        for event in home.events("message.posted")
        if event.run == run and isinstance(event.payload, MessagePosted)
    }
    talk = {(re.sub(r"\[.*", "", post.node), re.sub(r"\[.*", "", post.to)) for post in posts.values()}
    assert talk == {
        ("reader", "talk/findings"),
        ("planner", "node/reader"),
        ("planner", "node/patcher"),
        ("patcher", "node/planner"),
    }
    answered = {post.in_reply_to for post in posts.values() if post.node == "patcher"}
    assert answered == {name for name, post in posts.items() if post.to == "node/patcher"}
    spans = home.rlp("trace", run, "--spans", "--json").check().ndjson
    assert {span["span"] for span in spans if span["kind"] == "message"} == set(posts)


def memory(home: Home, run: str) -> None:
    """What a reader remembers is its own; what is shared was written by those who may."""
    written = {
        (told.namespace, event.provenance.agent)
        for event in home.events("memory.updated")
        if event.run == run and isinstance(told := event.payload, MemoryUpdated)
    }
    assert written == {
        ("agent:swarm_reader", "swarm_reader"),
        ("shared:swarm", "swarm_planner"),
        ("shared:swarm", "swarm_patcher"),
    }


@pytest.mark.requirement("I5.swarm.3")
def test_nobody_writes_outside_the_workspace_and_the_report_says_why_nothing_came_of_it(swarm: Home) -> None:
    place = Path(swarm.env["SWARM"])
    before = contents(place)
    run, given = work(swarm, workspace="tree")
    assert contents(place) == before
    report = given["planner"]["report"]
    assert report["patched"] == [] and len(report["undone"]) == 8
    assert all("failure: cap.denied" in one["why"] for one in report["undone"])
    denied = [
        event.payload.target  # type: ignore[attr-defined]
        for event in swarm.events("cap.audit")
        if event.run == run and event.payload.decision == "denied"  # type: ignore[attr-defined]
    ]
    assert len(denied) == 8 and all(target.startswith(f"{place}/tree/") for target in denied)
    assert swarm.rlp("replay", run, "--json").check().json["identical"] is True


@pytest.mark.requirement("I5.swarm.3")
@pytest.mark.parametrize("name", ["swarm_reader", "swarm_planner"])
def test_an_agent_that_wants_to_write_files_or_anothers_memory_is_refused(swarm: Home, name: str) -> None:
    """The same rights, other words: what the policy does not give, no source obtains."""
    place = Path(swarm.env["SWARM"])
    thief = swarm.path / "agents" / f"{name}_thief"
    shutil.copytree(swarm.path / "agents" / name, thief)
    (thief / "manifest.toml").write_text(
        f'name = "{name}_thief"\nversion = "0.1.0"\nlanguage = "python"\nentrypoint = "agent:handle"\n'
        'description = "Tries."\nops = ["fs.write", "memory.get"]\n[ports.out.out]\ntype = "list"\n'
    )
    (thief / "agent.py").write_text(
        "from runloop.agent import Result, Task, handler\nfrom runloop.host import Host, HostRefused\n\n"
        "@handler\ndef handle(task: Task, host: Host) -> Result:\n    heard = []\n"
        '    for op, args in task.param("asks"):\n        try:\n            host.call(op, args)\n'
        '            heard.append("")\n        except HostRefused as refused:\n'
        "            heard.append(refused.code)\n    return Result.of(out=heard)\n"
    )
    asks = (
        f'[["fs.write", {{"path": "{place}/patches/mine.diff", "text": "x"}}],'
        f' ["fs.write", {{"path": "{place}/tree/depot/stock.py", "text": "x"}}],'
        ' ["memory.get", {"namespace": "agent:swarm_reader", "key": "seen/depot/stock.py"}],'
        ' ["memory.get", {"namespace": "shared:orders", "key": "x"}]]'
    )
    path = swarm.path / f"{name}.yaml"
    path.write_text(
        f"version: 0\nname: thief\nnodes:\n  - {{id: n, use: agent:{name}_thief, with: {{asks: {asks}}}}}\n"
    )
    done = swarm.rlp("run", str(path), "--json", "--no-input").check()
    assert outputs(done)[1]["n"]["out"] == ["cap.denied", "cap.denied", "memory.namespace", "cap.denied"]
