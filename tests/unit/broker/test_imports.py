"""Imports as the daemon takes them: what is new is stated, once, and what was retracted stays so."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runloop.errors import UsageError
from runloop.events import (
    CalendarUpserted,
    ContactUpserted,
    DocumentImported,
    SourceRetracted,
    encode_payload,
)
from runloopd.broker.imports import Imports

from .world import World


@pytest.fixture
async def imports(world: World) -> AsyncIterator[Imports]:
    yield Imports(journal=world.journal, knowledge=world.knowledge, reader=world.reader)


def contact(name: str = "Ann", **more: Any) -> dict[str, Any]:
    return item(ContactUpserted(contact=name.lower(), name=name, **more))


def entry(sequence: int, title: str = "Review") -> dict[str, Any]:
    return item(CalendarUpserted(entry="e1", type="event", uid="u1", title=title, sequence=sequence))


def note(text: str) -> dict[str, Any]:
    return item(DocumentImported(document="d1", type="note", title="n", text=text, content_digest="a" * 64))


def item(payload: Any, origin: str = "/home/me/things") -> dict[str, Any]:
    return {"kind": payload.kind, "payload": encode_payload(payload), "origin": origin}


async def take(imports: Imports, *items: dict[str, Any], **more: Any) -> tuple[int, int]:
    answer = await imports.take("operator:1000", list(items), **more)
    return answer["appended"], answer["skipped"]


@pytest.mark.requirement("I4.import.1")
async def test_the_same_again_states_nothing_and_a_change_states_itself(
    world: World, imports: Imports
) -> None:
    assert await take(imports, contact(), entry(1), note("one")) == (3, 0)
    assert await take(imports, contact(), entry(1), note("one")) == (0, 3)
    assert await take(imports, contact(org="Acme"), entry(1), note("one")) == (1, 2)
    assert await take(imports, contact(org="Acme"), contact(org="Acme")) == (0, 2)
    stated = world.events("contact.upserted")
    assert len(stated) == 2
    assert (stated[0].provenance.label, stated[0].provenance.origin) == ("import:contact", "/home/me/things")


async def test_an_older_revision_of_a_calendar_entry_says_nothing_new(world: World, imports: Imports) -> None:
    assert await take(imports, entry(2, "moved")) == (1, 0)
    assert await take(imports, entry(1, "as it was")) == (0, 1)
    assert await take(imports, entry(2, "moved again")) == (1, 0)
    assert await take(imports, entry(4, "newest"), entry(3, "older")) == (1, 1)
    found = await world.knowledge.read("event", "e1", raw=True)
    assert (found["title"], found["sequence"]) == ("newest", 4)


async def test_two_imports_of_one_file_at_once_state_it_once(world: World, imports: Imports) -> None:
    taken = await asyncio.gather(*(take(imports, contact(), note("one")) for _ in range(20)))
    assert sum(new for new, _ in taken) == 2
    assert len(world.events("contact.upserted")) == 1


async def test_a_dry_run_tells_and_states_nothing(world: World, imports: Imports) -> None:
    assert await take(imports, contact(), dry_run=True) == (1, 0)
    assert world.events("contact.upserted") == []


async def test_what_was_read_from_below_a_folder_can_be_asked_for(imports: Imports) -> None:
    things = [
        item(ContactUpserted(contact=f"c{n}", name=f"N{n}"), origin)
        for n, origin in enumerate(["/a/b/x.vcf", "/a/b/y.vcf", "/a/b/y.vcf", "/a/bc.vcf", "/a/b0", "/a/b"])
    ]
    await take(imports, *things)

    async def under(path: str) -> list[str]:
        found: list[str] = []
        after = ("", "", "")
        while True:
            page = await imports.under(path, after, 2)
            found += [row["ref"] for row in page["items"]]
            if not page["truncated"]:
                return found
            last = page["items"][-1]
            after = (last["origin"], last["kind"], last["ref"])

    assert await under("/a/b") == ["c5", "c0", "c1", "c2"]
    assert await under("/a/b/y.vcf") == ["c1", "c2"]
    assert await under("/a/") == []


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "email.sent", "payload": {}},
        {"kind": "memory.updated", "payload": {}},
        {"kind": "contact.upserted", "payload": {"contact": "c"}},
        {"kind": "contact.upserted", "payload": {"contact": "c", "name": "n", "label": "user"}},
        {"kind": "contact.upserted", "payload": {"contact": "c", "name": "n"}, "origin": 7},
    ],
)
async def test_only_knowledge_of_the_right_shape_is_imported(
    world: World, imports: Imports, given: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        await take(imports, contact(), given)
    assert world.events("contact.upserted") == []


async def test_what_was_retracted_stays_so_and_costs_the_daemon_a_digest(
    world: World, imports: Imports
) -> None:
    def long(number: int, end: str = "") -> dict[str, Any]:
        text = f"{number}{'x' * 200_000}{end}"
        said = DocumentImported(
            document=f"d{number}", type="note", title="n", text=text, content_digest="a" * 64
        )
        return item(said)

    items = [long(number) for number in range(8)]
    assert await take(imports, *items) == (8, 0)
    facts = [event.id for event in world.events("document.imported")]
    (event,) = await world.state(
        SourceRetracted(
            source=facts[0], facts=facts, cascade=True, runs=[], approvals=[], reason="r", principal="p"
        )
    )
    await world.journal.views_at(event.id)
    await take(imports, contact())
    imports._taken_back = (None, {})
    tracemalloc.start()
    await take(imports, contact())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000
    answer = await imports.take("operator:1000", [*items, long(3, "and more")])
    assert (answer["retracted"], answer["appended"]) == (8, 1)
