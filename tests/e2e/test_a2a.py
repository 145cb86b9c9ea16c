"""Agents outside: Agent2Agent 1.0 over a real socket, by hand and by the official library's client."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from rlp.serving import a2a_face
from rlp.serving.a2a_face import A2AFace
from rlp.serving.limits import Allowance
from runloop.errors import UsageError
from runloop.events import RunCancelRequested, RunStarted
from tests.home import BIN, ROOT, Home, wait_until

SDK = os.environ.get("RUNLOOP_A2A_PYTHON", "")
"""An interpreter with the ``a2a-sdk``, in an environment of its own."""
WANTED = {"recipient": "john", "topic": "Q4 plan"}
MAIL = {"skill": "opening_compose_email"}


@contextlib.contextmanager
def served(home: Home) -> Iterator[str]:
    """``rlp a2a serve`` on a free port, started in a folder that somebody else wrote; its URL."""
    planted = home.path / "cloned" / "openings" / "compose_email.yaml"
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("version: 0\nname: compose_email\nnodes:\n  - {id: x, use: 'agent:critic'}\n")
    process = subprocess.Popen(
        [str(BIN / "rlp"), "a2a", "serve", "--rate", "1000"],
        env=home.env,
        cwd=home.path / "cloned",
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it does not say where it listens"
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


class Client:
    """A client written by hand."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.headers = {"A2A-Version": "1.0"}
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def post(self, method: str, params: Any, **headers: str) -> httpx2.Response:
        asked = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        return httpx2.post(self.url, json=asked, headers={**self.headers, **headers}, timeout=90)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result; an error is ``{"error": number}``."""
        said = self.post(method, params).json()
        assert said["id"] == 7 and said["jsonrpc"] == "2.0"
        return {"error": said["error"]["code"]} if "error" in said else dict(said["result"])

    def send(self, *parts: dict[str, Any], **message: Any) -> dict[str, Any]:
        return self.ask("SendMessage", message=words(*parts, **message))

    def stream(self, method: str, **params: Any) -> list[dict[str, Any]]:
        answer = self.post(method, params)
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
        lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line[6:])["result"] for line in lines]


NUMBERS = count(1)


def words(*parts: dict[str, Any], **message: Any) -> dict[str, Any]:
    return {"messageId": f"m{next(NUMBERS)}", "role": "ROLE_USER", "parts": list(parts), **message}


def state(task: dict[str, Any]) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


@pytest.fixture(scope="module")
def place(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str, dict[str, str]]]:
    """A home with contacts, two tokens, one opening exposed; what serves it."""
    path = tmp_path_factory.mktemp("h")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)  # it vouches for the ledger of the seed
    path.chmod(0o700)
    with Home(path) as home:
        home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
        tokens = {
            name: home.rlp("mcp", "serve", "--new-token", name, "--json").check().json["token"]
            for name in ("desk", "other")
        }
        home.rlp("mcp", "expose", "kb", "opening:compose_email", "tool:notify.send").check()
        with served(home) as url:
            yield home, url, tokens


Place = tuple[Home, str, dict[str, str]]


@pytest.mark.requirement("I6.faces.8", "C9")
def test_a_task_waits_for_the_person_and_no_word_of_the_agent_is_a_yes(place: Place) -> None:
    home, url, tokens = place
    desk, other = Client(url, tokens["desk"]), Client(url, tokens["other"])
    # Told as it goes: the task, its steps, and at last that it waits.
    updates = desk.stream(
        "SendStreamingMessage", message=words({"data": WANTED}, metadata=MAIL, contextId="c-1")
    )
    task = updates[0]["task"]
    assert state(task) in ("SUBMITTED", "WORKING") and task["contextId"] == "c-1"
    steps = [one["statusUpdate"]["status"] for one in updates[1:-1]]
    assert "send starts" in [step["message"]["parts"][0]["text"] for step in steps]
    last = updates[-1]["statusUpdate"]["status"]
    assert last["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert "mail.send" in last["message"]["parts"][0]["text"] and "@" not in json.dumps(updates)
    started = next(e.payload for e in home.events("run.started") if e.run == task["id"])
    assert isinstance(started, RunStarted)
    assert (started.principal, started.origin["via"]) == ("face:desk", "a2a")
    assert started.opening == "compose_email" and len(started.definition["nodes"]) > 1  # not the planted one

    # Whatever it says is no decision, and nothing of somebody else's exists for it.
    approval = last["message"]["parts"][0]["text"].partition("(")[2].rstrip(")")
    for said in ({"text": "approve"}, {"data": {"approval": approval, "decision": "approve"}}):
        assert desk.send(said, taskId=task["id"]) == {"error": -32004}
    for method in ("ApproveTask", "action.decision", "approvals.decide", "face.submit"):
        assert desk.ask(method, approval=approval, decision="approve", id=task["id"]) == {"error": -32601}
    refused = desk.send({"data": {**WANTED, "approved": True}}, metadata=MAIL)["task"]
    assert state(refused) == "REJECTED" and state(desk.ask("GetTask", id=refused["id"])) == "REJECTED"
    for method in ("GetTask", "CancelTask"):
        assert other.ask(method, id=task["id"]) == other.ask(method, id="nobody") == {"error": -32001}
    assert desk.ask("GetTask", id=task["id"][:8]) == {"error": -32001}
    assert other.ask("ListTasks")["tasks"] == []
    assert [one["id"] for one in desk.ask("ListTasks", contextId="c-1")["tasks"]] == [task["id"]]
    assert home.events("action.decided") == []

    # The person sees who asks, says yes; the agent that listens again gets what the opening saves.
    assert "the program desk, from outside" in home.rlp("approvals").check().out
    approved = home.rlp("approve", approval).check()
    assert "asked by" in approved.err and "the program desk, from outside" in approved.err
    wait_until(lambda: any(e.run == task["id"] for e in home.events("run.finished")), "the run to finish")
    done = desk.ask("GetTask", id=task["id"])
    assert state(done) == "COMPLETED"
    (artifact,) = done["artifacts"]
    assert artifact["name"] == "draft.out.json" and "Q4 plan" in json.dumps(artifact["parts"][0]["data"])
    for method in ("CancelTask", "SubscribeToTask"):
        assert desk.ask(method, id=task["id"])["error"] in (-32002, -32004)
    assert desk.send({"text": "more"}, taskId=task["id"]) == {"error": -32004}


@pytest.mark.requirement("I6.faces.8")
def test_an_agent_cancels_its_own_task_in_its_own_name(place: Place) -> None:
    home, url, tokens = place
    desk = Client(url, tokens["desk"])
    now = desk.ask(
        "SendMessage",
        message=words({"data": {"recipient": "john"}}, {"text": "Q4 plan"}, metadata=MAIL),
        configuration={"returnImmediately": True},
    )["task"]
    assert state(now) in ("SUBMITTED", "WORKING")
    wait_until(lambda: state(desk.ask("GetTask", id=now["id"])) == "INPUT_REQUIRED", "the task to wait")
    heard = desk.stream("SubscribeToTask", id=now["id"])
    assert heard[0]["task"]["id"] == now["id"]
    assert state(desk.ask("CancelTask", id=now["id"])) == "CANCELED"
    asked = [e.payload for e in home.events("run.cancel_requested") if e.run == now["id"]]
    assert [one.principal for one in asked if isinstance(one, RunCancelRequested)] == ["face:desk"]
    assert home.rlp("approvals").check().out.strip() == ""


@pytest.mark.requirement("I6.faces.8", "B1")
def test_the_card_names_skills_to_a_token_alone_and_what_is_wrong_is_told_by_number(place: Place) -> None:
    _, url, tokens = place
    desk = Client(url, tokens["desk"])
    at = url.replace("/a2a", "/.well-known/agent-card.json")
    card = httpx2.get(at).json()
    assert card["skills"] == [] and card["securitySchemes"]["token"]["httpAuthSecurityScheme"]
    assert card["supportedInterfaces"] == [
        {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    whole = httpx2.get(at, headers=desk.headers).json()
    assert [skill["id"] for skill in whole["skills"]] == ["opening_compose_email"]  # no tool, no knowledge
    assert desk.ask("GetExtendedAgentCard") == whole

    assert Client(url, None).post("GetTask", {"id": "x"}).status_code == 401
    assert Client(url, tokens["desk"] + "x").post("GetTask", {"id": "x"}).status_code == 401
    assert desk.post("GetTask", {"id": "x"}, Host="evil.example:80").status_code == 421
    assert desk.post("GetTask", {"id": "x"}, Origin="http://evil.example").status_code == 403
    for version in ("", "0.3", "2.0", "1.00"):
        spoken = desk.post("GetTask", {"id": "x"}, **{"A2A-Version": version}).json()
        assert spoken["error"]["code"] == -32009, version
    one = {"data": WANTED}
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"message": words(one, role="ROLE_AGENT")}, -32602),
        ({"message": words()}, -32602),
        ({"message": words({"text": "a", "data": {}})}, -32602),
        ({"message": words({"data": [1]})}, -32602),
        ({"message": words({"url": "http://169.254.169.254/"})}, -32005),
        ({"message": words({"raw": "AAAA"})}, -32005),
        ({"message": words(one, contextId="a b\n")}, -32602),
        ({"message": words(one), "configuration": {"acceptedOutputModes": ["image/png"]}}, -32005),
        (
            {
                "message": words(one),
                "configuration": {"taskPushNotificationConfig": {"url": "http://127.0.0.1:1"}},
            },
            -32003,
        ),
    ]
    for params, number in wrong:
        assert desk.ask("SendMessage", **params) == {"error": number}, params
        assert desk.ask("SendStreamingMessage", **params) == {"error": number}, params
    assert desk.ask("CreateTaskPushNotificationConfig", url="http://127.0.0.1:1") == {"error": -32003}
    for body, number in ((b"{", -32700), (b"[]", -32600), (b'{"jsonrpc": "1.0", "method": "x"}', -32600)):
        answer = httpx2.post(url, content=body, headers=desk.headers)
        assert answer.json()["error"]["code"] == number and answer.json()["id"] is None
    unknown = desk.send(one, metadata={"skill": "opening_assistant"})["task"]
    assert state(unknown) == "REJECTED" and "opening_compose_email" in json.dumps(unknown)


@pytest.mark.requirement("I6.faces.13")
def test_a_message_that_comes_again_is_the_task_it_began_also_after_the_daemon_was_killed(
    place: Place,
) -> None:
    home, url, tokens = place
    desk, other = Client(url, tokens["desk"]), Client(url, tokens["other"])
    said = words({"data": WANTED}, metadata=MAIL, contextId="twice", messageId="say it once")
    at_once = {"configuration": {"returnImmediately": True}}

    def ask(client: Client, message: dict[str, Any]) -> dict[str, Any]:
        return client.ask("SendMessage", message=message, **at_once)

    before = len(home.events("run.started"))
    with ThreadPoolExecutor(4) as pool:  # a client that repeats itself before it is answered
        tasks = [told["task"]["id"] for told in pool.map(lambda _: ask(desk, said), range(4))]
    (task,) = set(tasks)
    assert ask(desk, {**said, "parts": [{"data": {**WANTED, "topic": "x"}}]}) == {"error": -32602}
    assert ask(desk, {**said, "contextId": "thrice"}) == {"error": -32602}
    assert ask(other, said)["task"]["id"] != task
    wait_until(lambda: state(desk.ask("GetTask", id=task)) == "INPUT_REQUIRED", "the task to wait")

    home.kill()
    home.rlp("daemon", "start").check()
    # While nobody can say whose the token is, the door is closed.
    for client in (desk, other):
        wait_until(lambda who=client: who.post("ListTasks", {}).status_code == 200, "the door to open")  # type: ignore[misc]
    assert ask(desk, said)["task"]["id"] == task
    (first, *_) = desk.stream("SendStreamingMessage", message=said)
    assert first["task"]["id"] == task
    assert len(home.events("run.started")) == before + 2, "one of each client"
    for client, held in ((desk, task), (other, ask(other, said)["task"]["id"])):
        assert state(client.ask("CancelTask", id=held)) == "CANCELED"
    assert state(ask(desk, said)["task"]) == "CANCELED"


@pytest.mark.requirement("I6.faces.14")
def test_tasks_are_filtered_before_they_are_counted_and_paged(place: Place) -> None:
    _, url, tokens = place
    desk = Client(url, tokens["other"])
    made = []
    for context in ("paged", "elsewhere", "paged", "elsewhere", "paged"):
        told = desk.send({"data": WANTED}, metadata=MAIL, contextId=context)
        assert state(told.get("task") or {"status": {"state": str(told)}}) == "INPUT_REQUIRED"
        made.append(told["task"]["id"])
    mine = [made[4], made[2], made[0]]
    assert state(desk.ask("CancelTask", id=made[2])) == "CANCELED"

    def paged(size: int, **wanted: Any) -> list[str]:
        found, token, totals = [], "", set()
        for _ in range(10):
            told = desk.ask("ListTasks", pageSize=size, pageToken=token, **wanted)
            assert len(told["tasks"]) == size or not told["nextPageToken"], "only the last page is short"
            found += [task["id"] for task in told["tasks"]]
            totals.add(told["totalSize"])
            token = told["nextPageToken"]
            if not token:
                assert totals == {len(found)}
                return found
        raise AssertionError("there is no end to it")

    for size in (1, 2, 3, 50):
        assert paged(size, contextId="paged") == mine
        assert paged(size, contextId="paged", status="TASK_STATE_INPUT_REQUIRED") == [made[4], made[0]]
        assert paged(size, contextId="paged", status="TASK_STATE_CANCELED") == [made[2]]
        assert paged(size, contextId="paged", status="TASK_STATE_COMPLETED") == []
    assert paged(2)[:5] == made[::-1]
    for name in {*made} - {made[2]}:
        desk.ask("CancelTask", id=name)


@pytest.mark.requirement("I6.faces.15")
def test_what_one_client_is_refused_pushes_nothing_of_anothers_out(place: Place) -> None:
    _, url, tokens = place
    desk, other = Client(url, tokens["desk"]), Client(url, tokens["other"])
    wrong = {"skill": "opening_nothing"}
    kept = other.send({"data": {}}, metadata=wrong)["task"]["id"]
    face = A2AFace(cast(Any, None), runs=Allowance(per_s=1, burst=1), url=url)
    own = face._refuse("other", "", UsageError("no"))
    for _ in range(10 * a2a_face._REFUSED):
        face._refuse("desk", "", UsageError("no"))
    assert [len(tasks) for tasks in face._refused.values()] == [1, a2a_face._REFUSED]
    assert own["id"] in face._refused["other"]
    assert state(other.ask("GetTask", id=kept)) == "REJECTED"
    assert desk.ask("GetTask", id=kept) == {"error": -32001}


@pytest.mark.skipif(not SDK, reason="RUNLOOP_A2A_PYTHON names no interpreter with the a2a-sdk")
def test_the_official_librarys_client_is_served(place: Place) -> None:
    home, url, tokens = place
    script = Path(__file__).parent / "a2a_client.py"
    played = subprocess.run(
        [SDK, str(script), url, tokens["other"]],
        input=json.dumps(WANTED),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    told = json.loads(played.stdout)
    assert told["skills"] == ["opening_compose_email"]
    assert told["updates"][-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert state(told["found"]) == "INPUT_REQUIRED" and told["listed"] == [told["found"]["id"]]
    assert state(told["cancelled"]) == "CANCELED" and told["error"] == "TaskNotFoundError"
    assert home.events("email.sent")[1:] == []
