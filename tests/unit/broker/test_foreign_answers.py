"""What a model, a server that asks, a folder and a mail say is data at the gate, whatever it says (P6).

The hostile texts and the fields are those of ``tests/foreign.py``; documents are in
``tests/unit/test_foreign_text.py``.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pog.importers import parse
from runloop.escape import visible
from runloop.events import DocumentImported
from runloop.testing import ManualClock
from runloopd.broker.mcp.messages import Question
from runloopd.broker.mcp.questions import Questions
from runloopd.broker.ports import ModelAnswer, WantedCall
from runloopd.broker.testing import ScriptedModels
from runloopd.broker.toolbox import ToolContext
from tests.foreign import FIELDS, PAYLOADS
from tests.hostile_text import assert_harmless

from .world import RUN, World, ask, until

QUIET = {"hostcall.admitted", "hostcall.delivered", "model.called"}
"""What a call that only tells something leaves on record."""


class Says(ScriptedModels):
    """A model with a hostile text in one field of its answer."""

    leaf, payload = "text", ""

    async def complete(self, request: Any, **given: Any) -> ModelAnswer:
        """See the port."""
        answer = await super().complete(request, **given)
        text = self.payload
        match self.leaf:
            case "text" | "parts[]":
                return replace(answer, text=text, parts=(text,))
            case "fallbacks[]":
                return replace(answer, fallbacks=(text,))
            case "tool_calls[].arguments{key}":
                wanted = WantedCall(id="c1", name="mail_send", arguments={text: "v"})
            case "tool_calls[].arguments{}":
                wanted = WantedCall(id="c1", name="mail_send", arguments={"to": [text]})
            case "tool_calls[].malformed":
                wanted = WantedCall(id="c1", name="mail_send", arguments=None, malformed=text)
            case "tool_calls[].id":
                wanted = WantedCall(id=text, name="mail_send", arguments={})
            case _:
                wanted = WantedCall(id="c1", name=text, arguments={})
        return replace(answer, text="", parts=(), tool_calls=(wanted,), finish="tools")


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("leaf", [leaf for leaf, fate in FIELDS["model.answer"].items() if fate != "ours"])
async def test_what_a_model_says_is_an_answer_and_nothing_else(tmp_path: Path, leaf: str) -> None:
    world = World(tmp_path, ManualClock())
    world.models = model = Says()
    model.leaf = leaf
    await (await world.start()).run()
    tools = [{"name": "mail_send", "parameters": {"type": "object"}}]
    for name, text in PAYLOADS.items():
        model.payload = text
        seen = len(world.events())
        answer = await world.call(await world.caller(node=name), "model.complete", ask("hello", tools=tools))
        after = [
            event for event in world.events()[seen:] if event.kind not in ("node.scheduled", "token.issued")
        ]
        assert {event.kind for event in after} <= QUIET | {"cap.audit"}
        told = next(event for event in after if event.kind == "hostcall.delivered")
        label = told.provenance.label
        assert answer.ok or answer.value["code"] == "model.protocol", answer.value
        assert label is None if not answer.ok else label is not None and label.startswith("model:"), name
        run = world.gate._record.run(RUN)
        assert run is not None and run.tree.origins == set()
    assert world.mail.dispatched == [] and world.approvals.list() == []
    await world.stop()


@pytest.mark.requirement("P6", "C11")
@pytest.mark.parametrize("leaf", FIELDS["mcp.question"])
async def test_what_a_server_asks_is_shown_with_its_origin_or_declined(world: World, leaf: str) -> None:
    questions = Questions(world.promises, world.journal, world.knowledge, world.clock)
    fates = {}
    for number, (name, text) in enumerate(PAYLOADS.items()):
        fields = {"colour": {"type": "string"}}
        made = Question(question=number, ask=1, message="Which?", schema={"properties": fields})
        if leaf == "message":
            made = Question(question=number, ask=1, message=text, schema=made.schema)
        elif leaf == "schema{key}":
            made = Question(question=number, ask=1, message="Which?", schema={"properties": {text: {}}})
        elif leaf == "schema{}":
            choices = {"properties": {"colour": {"enum": [text], "title": text}}}
            made = Question(question=number, ask=1, message="Which?", schema=choices)
        else:
            made = Question(question=number, ask=1, message="Which?", schema=made.schema, url=text)
        context = ToolContext(
            agent="writer", run=RUN, node="draft", key=f"k{number}", deadline_ms=world.clock.now_ms() + 9_000
        )
        before = len(world.events())
        task = asyncio.ensure_future(questions.put("srv", "tool", made, context))
        world.tasks.append(task)
        await until(lambda task=task, before=before: task.done() or len(world.events()) > before)  # type: ignore[misc]
        stated = world.events()[before:]
        fates[name] = "asked" if stated else "declined"
        if not stated:
            error = task.exception()
            assert error is None or "UTF-8" in str(error) or "surrogate" in str(error)
            continue
        (event,) = stated
        asked: Any = event.payload
        assert (event.kind, event.provenance.label) == ("promise.created", "mcp:srv")
        assert asked.question.startswith("the MCP server srv asks, while tool runs: ")
        assert asked.resolver == "operator" and len(asked.question) <= 2_000 and len(asked.choices) <= 16
        assert_harmless(visible(asked.question))
        task.cancel()
    assert set(fates.values()) == {"declined"} if leaf == "url" else fates["orders"] == "asked"
    assert world.approvals.list() == []


@pytest.mark.requirement("P6")
async def test_names_in_a_folder_are_data_of_that_folder(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names") / "names"
    folder.mkdir()
    made = set()
    for text in PAYLOADS.values():
        name = text.replace("/", "_").replace("\0", "_")
        if len(os.fsencode(name.encode(errors="replace").decode())) < 250:
            name = name.encode(errors="replace").decode()
            (folder / name).write_text("x")
            made.add(name)
    assert len(made) >= 8
    caller = await world.caller(f'fs_ro = ["{folder}"]')
    seen = len(world.events())
    answer = await world.call(caller, "fs.list", {"path": str(folder)})
    assert answer.ok and {entry["name"] for entry in answer.value["entries"]} <= made
    after = world.events()[seen:]
    assert {event.kind for event in after} <= QUIET | {"cap.audit"}
    told = next(event for event in after if event.kind == "hostcall.delivered")
    assert str(told.provenance.label).startswith("file:")
    for name in made:
        read = await world.call(caller, "fs.read", {"path": str(folder / name)})
        assert read.ok or read.value["code"].startswith(("fs.", "op.", "cap.")), read.value
    assert world.approvals.list() == []


def imported(path: Path) -> tuple[list[Any], list[str]]:
    """What a file holds, and what was wrong with it."""
    told: list[str] = []
    return list(parse([path], on_problem=lambda problem: told.append(problem.what))), told


HEADERS = ("From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "X-Approved", "Content-Type")


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_a_mail_makes_one_document_of_that_mail(tmp_path: Path, header: str) -> None:
    for name, text in PAYLOADS.items():
        lines = {
            "From": "Ann <ann@example.org>",
            "To": "me@example.org",
            "Subject": "Hello",
            "Message-ID": f"<{name}@example.org>",
            header: " ".join(text.splitlines()) or "x",
        }
        raw = "".join(f"{key}: {value}\r\n" for key, value in lines.items()) + "\r\nbody\r\n"
        path = tmp_path / f"{name}.eml"
        path.write_bytes(raw.encode("utf-8", "surrogateescape" if name != "surrogate" else "replace"))
        found, told = imported(path)
        assert len(found) + len(told) >= 1, "nothing is lost without a word"
        for one in found:
            assert isinstance(one, DocumentImported) and one.type == "mail"
            assert len(one.title) <= 10_000 and len(one.text) <= 2_000_000
            assert all("@" in person and " " not in person for person in one.people)
            assert one.kind == "document.imported"
        assert len(found) <= 1
