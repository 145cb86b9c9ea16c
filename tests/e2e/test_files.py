"""Files as a user meets them: an agent reads and writes the directory it was granted, and no other."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from runloop.digest import blob_digest
from runloop.events import CapAudit, HostcallDelivered, NodeFinished
from tests.home import ROOT, Home

MANIFEST = """\
name = "keeper"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Keeps a list of what lies in a directory."
ops = ["fs.read", "fs.write", "fs.list", "fs.stat"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = {}
    for name, op, args in task.param("asks"):
        try:
            heard[name] = host.call(op, args)
        except HostRefused as refused:
            heard[name] = refused.code
    return Result.of(out=heard)
"""


def keeper(home: Home, *roots: Path, name: str = "fs_rw") -> None:
    home.write_agent("keeper", MANIFEST, SOURCE, f"{name} = {json.dumps([str(r) for r in roots])}\n")


def run(home: Home, asks: dict[str, Any], code: int = 0) -> Any:
    """What the agent heard."""
    path = home.path / "keep.yaml"
    asked = json.dumps([[name, *ask] for name, ask in asks.items()])  # a list: objects have no order
    path.write_text(
        "version: 0\nname: keep\nnodes:\n"
        f'  - id: keep\n    use: "agent:keeper"\n    with: {{asks: {asked}}}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check(code)
    end = home.events("node.finished")[-1].payload
    assert isinstance(end, NodeFinished) and end.output is not None
    return end.output["ports"]["out"][0]


@pytest.fixture
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "plan.txt").write_text("Grüße")
    return folder


@pytest.mark.requirement("F1", "L7")
def test_an_agent_reads_and_writes_its_directory_and_the_run_replays_without_it(
    home: Home, docs: Path, tmp_path: Path
) -> None:
    keeper(home, docs)
    (tmp_path / "secret").write_text("outside")
    (docs / "link").symlink_to(tmp_path / "secret")
    heard = run(
        home,
        {
            "read": ["fs.read", {"path": f"{docs}/plan.txt"}],
            "write": ["fs.write", {"path": f"{docs}/list.txt", "text": "plan.txt\n", "expected": ""}],
            "list": ["fs.list", {"path": str(docs)}],
            "stat": ["fs.stat", {"path": f"{docs}/list.txt"}],
            "outside": ["fs.read", {"path": str(tmp_path / "secret")}],
            "around": ["fs.read", {"path": f"{docs}/../{tmp_path.name}/secret"}],
            "by link": ["fs.read", {"path": f"{docs}/link"}],
            "over link": ["fs.write", {"path": f"{docs}/link", "text": "mine"}],
            "ledger": ["fs.read", {"path": str(home.events_db)}],
        },
    )
    assert heard["read"]["text"] == "Grüße"
    assert [entry["name"] for entry in heard["list"]["entries"]] == ["link", "list.txt", "plan.txt"]
    assert (heard["write"]["size"], heard["stat"]["size"]) == (9, 9)
    assert (heard["outside"], heard["around"], heard["by link"], heard["over link"], heard["ledger"]) == (
        "cap.denied",
        "fs.path",
        "fs.symlink",
        "fs.symlink",
        "cap.denied",
    )
    assert (docs / "list.txt").read_text() == "plan.txt\n"
    assert stat.S_IMODE((docs / "list.txt").stat().st_mode) == 0o600
    assert (tmp_path / "secret").read_text() == "outside"
    denied = [e.payload for e in home.events("cap.audit") if isinstance(e.payload, CapAudit)]
    assert [(audit.capability, audit.target) for audit in denied] == [
        ("fs_ro", str(tmp_path / "secret")),
        ("fs_ro", str(home.events_db)),
    ]

    shutil.rmtree(docs)
    report = home.rlp("replay", str(home.events("run.started")[0].run), "--json").check().json
    assert report["identical"] is True
    assert not docs.exists()


@pytest.mark.requirement("F4")
def test_a_grant_of_everything_reaches_neither_ledger_nor_keys_nor_socket(home: Home) -> None:
    keeper(home, Path("/"))
    home.rlp("daemon", "start").check()
    targets = [
        home.path,
        home.events_db,
        home.path / "keys" / "operator.key",
        home.path / "trust.toml",
        home.path / "config.toml",
        home.path / "run" / "rmp.sock",
        home.path / "agents" / "keeper" / "policy.caps",
        Path("/proc/self/environ"),
        Path("/sys/kernel/uevent_seqnum"),
        Path("/dev/null"),
    ]
    asks = {
        f"{op} {path}": [op, {"path": str(path), **more}]
        for path in targets
        for op, more in (("fs.read", {}), ("fs.write", {"text": "mine"}), ("fs.list", {}), ("fs.stat", {}))
    }
    heard = run(home, {**asks, "control": ["fs.stat", {"path": str(home.path.parent)}]})
    assert {heard[name] for name in asks} <= {"fs.own", "fs.mount", "fs.system"}
    assert heard["control"]["kind"] == "dir", "nothing at all was reached: this proves nothing"
    assert not (home.path / "trust.toml").exists()
    assert (home.path / "agents" / "keeper" / "policy.caps").read_text().startswith("[capabilities]")


def test_the_agent_of_the_howto_keeps_its_index(home: Home, docs: Path) -> None:
    page = (ROOT / "docs" / "howto" / "files.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(caps|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    (docs / "summaries").mkdir()
    keeper(home, docs)
    folder = home.path / "agents" / "keeper"
    (folder / "agent.py").write_text(blocks["python"].replace("/home/ann/notes", str(docs)))
    (folder / "policy.caps").write_text(blocks["caps"].replace("/home/ann/notes", str(docs)))
    for known in ("plan.txt", "plan.txt\nzebra"):
        assert run(home, {}) == {"digest": blob_digest(known.encode()), "size": len(known)}
        assert (docs / "summaries" / "index.txt").read_text() == known
        (docs / "zebra").write_text("x")


def test_the_operators_word_takes_a_directory_away(home: Home, docs: Path) -> None:
    keeper(home, docs)
    home.rlp("daemon", "start").check()
    home.rlp("cap", "revoke", "keeper", "fs_rw").check()
    asks = {"write": ["fs.write", {"path": f"{docs}/plan.txt", "text": "mine"}]}
    assert run(home, asks) == {"write": "cap.denied"}
    assert (docs / "plan.txt").read_text() == "Grüße"
    heard = [e.payload for e in home.events("hostcall.delivered")]
    assert [(h.op, h.ok) for h in heard if isinstance(h, HostcallDelivered)] == [("fs.write", False)]
    assert home.events("hostcall.admitted") == []
