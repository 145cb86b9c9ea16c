"""A standard day of honest work on a real daemon: who is asked what, and what leaves (attacks.md C7, P5).

One morning's mail and notes come in, two mails go out, a model on this machine fulfils wishes, a schedule
ticks, files are kept, pages are read, a foreign server's tools are called. People are asked about what leaves
and about what widens authority, and about nothing else: one prompt more than :data:`PROMPTS` is a regression.
``docs/internals/standard-day.md`` is its page. What left is compared with the baseline of the tripwires;
``RUNLOOP_RECORD_DAY=1`` writes it anew.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pog.reader import Reader
from runloop.digest import canonical
from runloop.events import ActionRequested, HostcallDelivered, NodeScheduled, RunStarted
from tests.contract.scripted_model import ScriptedModel, Wanted, call, calls, say
from tests.home import ROOT, Home, example_paths, wait_until
from tests.standard_day import BASELINE, Sent, limits_hold

PROMPTS = {"mail.send": 2}
"""Kind of action -> how often a person is asked on a standard day."""
WIDENING = {"mcp.add": 1, "mcp.approve": 1}
"""What is asked once, when the foreign server is taken in (C8)."""
EXTERNAL = {"mail.send", "tool.call", "spend"}
"""Kinds of action that leave the machine or cost money."""
PAGES = 45
LOOKS = 20

WORKER = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Does what it is told."
ops = [{ops}]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    answers = [host.call(op, args) for op, args in task.param("asks")]
    return Result.of(out={"answers": len(answers)})
"""
LOOK_UP = """\
version: 0
name: look_up
nodes:
  - {id: find, use: "agent:contact_resolver", with: {query: "john"}}
"""
SCRIPTS: dict[str, Any] = {
    "rollout": [
        call("kb_find", query="rollout", kinds=["note"], newest=True, limit=3),
        call("draft_mail", to=["john"], subject="The rollout", body="Dear John,\nall is well."),
        say("Three notes say: all is well. The draft is kept."),
    ],
    "remember": [calls(Wanted("memory_remember", {"text": "The offsite is in May."})), say("Kept.")],
    "offsite": [
        call("memory_recall", query="offsite"),
        call("kb_find", query="offsite", kinds=["note"]),
        say("In May."),
    ],
    "tell john": [
        call("kb_find", query="rollout", kinds=["note"]),
        call("mail_send", to=["John Carter"], subject="The rollout", body="Dear John,\nall is well."),
        say("It is sent."),
    ],
}


@pytest.fixture
def site() -> Iterator[str]:
    """``host:port`` of a server of pages."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"page {self.path}\n".encode() * 40
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def worker(home: Home, name: str, ops: str, caps: str) -> None:
    shown = ", ".join(f'"{op}"' for op in ops.split())
    home.write_agent(name, WORKER.format(name=name, ops=shown), SOURCE, caps)


def work(home: Home, name: str, asks: list[tuple[str, dict[str, Any]]]) -> None:
    """One run of a worker."""
    path = home.path / f"{name}.yaml"
    path.write_text(
        f"version: 0\nname: {name}_day\nnodes:\n"
        f'  - id: work\n    use: "agent:{name}"\n    with: {{asks: {json.dumps(asks)}}}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check()


def approve(home: Home) -> dict[str, Any]:
    """Say yes to the one thing that waits."""
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    before = len(home.events("run.finished"))
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: len(home.events("run.finished")) > before, "the run to finish")
    return dict(waiting["action"])


# --- the day --------------------------------------------------------------------------------------


def morning(home: Home) -> None:
    """Mail, notes and contacts come in; a mail is written without any model."""
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("kb", "search", "rollout").check()
    home.rlp("run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", "--no-input").check(5)
    assert approve(home)["recipients"] == ["john.carter@example.org"]


def take_in_a_server(home: Home, folder: Path) -> None:
    """A person adds a foreign server and approves its tools as ones that read."""
    server = ROOT / "tests" / "contract" / "mcp_hostile.py"
    folder.mkdir()
    script = folder / "script.json"
    tool = {"name": "look", "description": "Looks something up.", "inputSchema": {"type": "object"}}
    script.write_text(json.dumps({"tools": [tool]}))
    words = (
        "--ro",
        str(server.parent),
        "--ro",
        str(folder),
        "--",
        "/usr/bin/python3",
        str(server),
        str(script),
    )
    added = home.terminal("mcp", "add", "facts", *words, answers={"type facts": "facts\n"})
    assert added.code == 0, added.out
    approved = home.terminal("mcp", "approve", "facts", "--read", answers={"type facts": "facts\n"})
    assert approved.code == 0, approved.out


def wishes(home: Home, model: ScriptedModel) -> None:
    """A model on this machine reads, drafts, remembers; one wish sends."""
    for wish in (
        "what do the notes say on the rollout, and draft a mail",
        "? remember the offsite is in May",
    ):
        home.rlp(wish, "--no-input").check()
    assert home.rlp("? when is the offsite", "--no-input").check().out == "In May.\n"
    home.rlp("? tell john that all is well", "--no-input").check(5)
    assert approve(home)["recipients"] == ["john.carter@example.org"]


def chores(home: Home, site: str, kept: Path) -> None:
    """Pages are read, files are kept, the foreign server is asked, a schedule ticks."""
    kept.mkdir()
    pages = [f"http://{site}/page/{n}?q=rollout" for n in range(PAGES)]
    work(home, "reader", [("http.fetch", {"url": url}) for url in pages])
    names = [str(kept / f"note-{n}.txt") for n in range(10)]
    files = [("fs.write", {"path": name, "text": "kept\n" * 100}) for name in names]
    files += [("fs.read", {"path": name}) for name in names] + [("fs.list", {"path": str(kept)})]
    work(home, "filer", files)
    looks = [("tool.call", {"tool": "mcp.facts.look", "args": {"about": f"item {n}"}}) for n in range(LOOKS)]
    work(home, "asker", looks)
    (home.path / "look_up.yaml").write_text(LOOK_UP)
    home.rlp("schedule", "add", "tick", "look_up.yaml", "--cron", "* * * * * *").check()
    wait_until(lambda: ticks(home) >= 2, "the schedule to tick twice")
    home.rlp("schedule", "pause", "tick").check()


def ticks(home: Home) -> int:
    done = {event.run for event in home.events("run.finished")}
    started = [event for event in home.events("run.started") if event.run in done]
    return sum(
        isinstance(event.payload, RunStarted) and event.payload.principal == "schedule:tick"
        for event in started
    )


# --- what became of it ----------------------------------------------------------------------------


def sent(home: Home) -> list[Sent]:
    """What left for somewhere, in order, as the ledger has it."""
    found: list[Sent] = []
    events = home.events("hostcall.delivered")
    began = events[0].ts_ms
    names: dict[str, str] = {}
    sites: dict[str, str] = {}
    with Reader(home.events_db) as reader:
        for event in events:
            told = event.payload
            assert isinstance(told, HostcallDelivered)
            if told.op not in ("http.fetch", "tool.call"):
                continue
            args = json.loads(reader.blob(told.args_blob))
            run = names.setdefault(str(event.run), f"run{len(names) + 1}")
            agent, at = str(event.provenance.agent), event.ts_ms - began
            if told.op == "http.fetch":
                url = str(args["url"])
                place = sites.setdefault(urlsplit(url).netloc, f"site{len(sites) + 1}.example")
                found.append(
                    Sent(run=run, agent=agent, place=place, size=len(url), address=len(url), at_ms=at)
                )
            elif str(args["tool"]).startswith("mcp."):
                size = len(canonical(args["args"]))
                server = str(args["tool"]).split(".")[1]
                found.append(
                    Sent(run=run, agent=agent, place=f"mcp:{server}", size=size, address=0, at_ms=at)
                )
    return found


@pytest.mark.requirement("C7", "P5", "B1")
def test_a_standard_day_asks_only_about_what_leaves_and_what_widens(
    home: Home, site: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    worker(home, "reader", "http.fetch", f'net = [{{hosts = ["{site}"], allow_http = true}}]\n')
    worker(home, "filer", "fs.read fs.write fs.list", f'fs_rw = ["{kept}"]\n')
    worker(home, "asker", "tool.call", 'tools = ["mcp.facts.*"]\n')
    morning(home)
    take_in_a_server(home, tmp_path / "facts")
    home.rlp("daemon", "stop").check()
    model = ScriptedModel(SCRIPTS)
    with model:
        home.env.update(model.env())
        wishes(home, model)
        chores(home, site, kept)
        assert len(model.asked) >= 10, "the model was asked"
    sockets = next(row for row in home.rlp("doctor", "--json").ndjson if row["name"] == "sockets")
    assert sockets["state"] == "ok" and re.fullmatch(
        r"unix /\S*rmp\.sock \(runloopd, pid \d+\)", sockets["found"]
    )

    asked = [event.payload for event in home.events("action.requested")]
    prompts = Counter(one.action["kind"] for one in asked if isinstance(one, ActionRequested))
    assert prompts == PROMPTS | WIDENING
    for one in asked:
        assert isinstance(one, ActionRequested)
        if one.action["kind"] not in WIDENING:
            assert one.action["kind"] in EXTERNAL and one.effect in ("send", "spend")
            assert one.action["recipients"] or one.action["resource"], "it names what is touched"
    assert [event.kind for event in home.events("promise.created")] == []
    assert len(home.outbox()) == PROMPTS["mail.send"]

    # Nothing of it looked like a leak, and nothing of it would have at ten times the pace.
    assert home.events("agent.quarantined") == []
    stream = sent(home)
    assert Counter(one.agent for one in stream) == {"reader": PAGES, "asker": LOOKS}
    assert limits_hold(stream) and limits_hold(stream, pace=10)
    scheduled = [event for event in home.events("node.scheduled") if isinstance(event.payload, NodeScheduled)]
    assert len(scheduled) >= 12, "a day's work"
    if os.environ.get("RUNLOOP_RECORD_DAY"):
        BASELINE.write_text("".join(f"{one.to_json()}\n" for one in stream))
    recorded = Counter((one.agent, one.place.partition(":")[0][:4]) for one in Sent.read(BASELINE))
    assert recorded == Counter((one.agent, one.place.partition(":")[0][:4]) for one in stream), (
        "the recorded baseline is of another day: RUNLOOP_RECORD_DAY=1 writes it anew"
    )
