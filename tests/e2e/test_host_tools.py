"""The host's tools as a user meets them: an agent looks, runs a program, has a line approved; a replay."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from runloop.events import NodeFinished
from tests.home import Home, wait_until

MANIFEST = """\
name = "hand"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Calls tools of the host."
ops = ["tool.call", "tool.list"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = {"tools": sorted(tool["id"] for tool in host.call("tool.list", {})["tools"])}
    for name, tool, args in task.param("asks"):
        try:
            heard[name] = host.call("tool.call", {"tool": tool, "args": args})["result"]
        except HostRefused as refused:
            heard[name] = refused.code
    return Result.of(out=heard)
"""


@pytest.mark.requirement("I6.host.3")
@pytest.mark.requirement("I6.programs.2")
def test_an_agent_uses_the_hosts_tools_and_the_run_replays_without_them(
    home: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "plan.txt").write_text("the rollout is on Monday\n")
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    grants = (
        f'fs_rw = {json.dumps([str(folder)])}\nexec = ["sort"]\n'
        'tools = ["files.search", "exec.run", "exec.ask", "git.status", "shell.run"]\n'
    )
    home.write_agent("hand", MANIFEST, SOURCE, grants)
    asks = [
        ["found", "files.search", {"path": str(folder), "text": "rollout"}],
        ["sorted", "exec.run", {"argv": ["sort"], "stdin": "b\na\n"}],
        ["status", "git.status", {"repo": str(folder)}],
        ["denied", "exec.ask", {"argv": ["id"]}],
        ["unknown", "files.delete", {"path": f"{folder}/plan.txt"}],
        ["line", "shell.run", {"line": f"ls {home.path}; wc -l < {folder}/plan.txt", "cwd": str(folder)}],
    ]
    path = home.path / "hand.yaml"
    path.write_text(
        "version: 0\nname: hand\nnodes:\n"
        f'  - id: hand\n    use: "agent:hand"\n    with: {{asks: {json.dumps(asks)}}}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    assert "shell.run" in home.rlp("approvals").check().out
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    end = home.events("node.finished")[-1].payload
    assert isinstance(end, NodeFinished) and end.output is not None
    heard = end.output["ports"]["out"][0]
    assert heard["tools"] == ["exec.ask", "exec.run", "files.search", "git.status", "shell.run"]
    assert heard["found"]["matches"][0]["line"] == 1
    assert heard["sorted"]["stdout"] == "a\nb\n"
    assert heard["status"]["files"] == [{"state": "??", "path": "plan.txt"}]
    assert (heard["denied"], heard["unknown"]) == ("cap.denied", "cap.denied")
    assert heard["line"]["stdout"].strip() == "1" and "No such file" in heard["line"]["stderr"]
    rows = {row["name"]: row for row in home.rlp("doctor", "--json").ndjson}
    assert rows["programs"]["state"] == "ok" and "Landlock" in rows["programs"]["found"]

    shutil.rmtree(folder)
    report = home.rlp("replay", str(home.events("run.started")[0].run), "--json").check().json
    assert report["identical"] is True
