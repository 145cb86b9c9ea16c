"""The Artifacts pane: list, preview, comparison, saving; nothing is opened or written by itself."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from agtop.feed.twin import TwinFeed
from agtop.files import pager_input, plain_name, written
from agtop.lines import Lines
from agtop.panes.artifacts import ArtifactsPane
from agtop.screens.choose import ChooseScreen
from agtop.screens.preview import PreviewScreen, pages
from agtop.screens.typed import Typed, TypedScreen
from runloop.digest import blob_digest
from runloop.errors import FailedError, NotFoundError, UsageError
from tests.hostile_text import ALL_AT_ONCE, HOSTILE, WITNESS, assert_harmless
from tests.snapshots.frames import cockpit, seen, text_of

RUN = "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11"
OTHER = "1c8d4f63-9b66-4d2f-8a7f-3e7a2a1b8c22"


def run(name: str, files: dict[str, bytes], *, first: int = 1, media_type: str = "text/plain") -> list[Any]:
    """Facts of a run that produced these files."""
    told: list[tuple[str, dict[str, Any]]] = [("run.started", started())]
    told += [
        (
            "artifact.created",
            {
                "name": title,
                "node": "write",
                "port": None,
                "media_type": media_type,
                "blob": blob_digest(data),
                "size": len(data),
            },
        )
        for title, data in files.items()
    ]
    return [
        {
            "id": place,
            "ts_ms": 1_750_000_000_000 + place,
            "actor": "daemon",
            "kind": kind,
            "run": name,
            "payload": payload,
            "provenance": {},
            "version": 2 if kind == "run.started" else 1,
        }
        for place, (kind, payload) in enumerate(told, first)
    ]


def started() -> dict[str, Any]:
    return {
        "opening": "files",
        "definition": {"name": "files", "nodes": [], "edges": []},
        "definition_digest": "ab" * 32,
        "params": {},
        "agents": {},
        "engine": {},
        "policy": {},
        "principal": "operator:0",
        "origin": {},
    }


def feed(files: dict[str, bytes], others: dict[str, bytes] | None = None, **how: Any) -> TwinFeed:
    made = TwinFeed([*run(OTHER, others or {}), *run(RUN, files, first=1_000, **how)])
    for data in (*files.values(), *(others or {}).values()):
        made.keep(data)
    return made


def pane_of(app: Any) -> ArtifactsPane:
    assert isinstance(app.pane, ArtifactsPane)
    return app.pane


FILES = {"a.txt": b"first\nsecond\n", "b.json": b'{"x": [1, 2]}', "c.bin": bytes(range(200))}


async def test_files_are_listed_and_the_selected_one_is_read() -> None:
    async with cockpit(feed(FILES), "artifacts", run=RUN) as (app, pilot):
        await seen(pilot, lambda: "3 files" in text_of(app) and "second" in text_of(app))
        await pilot.press("j")
        await seen(pilot, lambda: '"x": [' in text_of(app))
        await pilot.press("x")
        await seen(pilot, lambda: "7b 22 78 22" in text_of(app))
        await pilot.press("G")
        await seen(pilot, lambda: "00 01 02 03" in text_of(app))
        await pilot.press("pagedown")
        await seen(pilot, lambda: "000000c0" in text_of(app))
        await pilot.press("pageup", "g", "x", "enter")
        await seen(pilot, lambda: isinstance(app.screen, PreviewScreen))
        await pilot.press("x")
        await seen(pilot, lambda: "66 69 72 73 74" in text_of(app))
        await pilot.press("escape", "k", "full_stop")
        await seen(pilot, lambda: app.view().index == 2)
        await seen(pilot, lambda: "one file" in text_of(app))


async def test_the_preview_fills_its_place_also_when_nothing_but_that_place_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agtop.app.TICK_S", 3_600.0)  # as with a run that is over: no second draws anew
    async with cockpit(feed({"long": b"x" * 400}), "artifacts", (120, 40), run=RUN) as (app, pilot):
        preview = pane_of(app).query_one("#artifacts-preview", Lines)

        def filled() -> bool:
            return text_of(app, preview.region).splitlines()[0].count("x") > preview.columns - 12

        await seen(pilot, filled)
        await pilot.pause()
        await pilot.pause()
        before = preview.columns
        pane_of(app).remove_class("-wide")  # below the list now: the pane itself stays as wide as it was
        await seen(pilot, lambda: preview.columns > before + 20 and filled())


async def test_two_runs_are_compared_and_a_difference_is_told() -> None:
    fed = feed(FILES, {"a.txt": b"first\nthird\n", "b.json": FILES["b.json"], "old": b"gone"})
    async with cockpit(fed, "artifacts", (120, 40), run=RUN) as (app, pilot):
        await pilot.press("d")
        await seen(pilot, lambda: isinstance(app.screen, ChooseScreen) and OTHER[:8] in text_of(app))
        await pilot.press("enter")
        await seen(pilot, lambda: "1 same, 1 changed, 1 only here, 1 only there" in text_of(app))
        await seen(pilot, lambda: "-third" in text_of(app) and "+second" in text_of(app))
        rows = [line.split()[0] for line in text_of(app, pane_of(app).lines.region).splitlines()[:4]]
        assert [row.strip("▌") for row in rows] == ["~", "=", "+", "-"]
        await pilot.press("d")
        await seen(pilot, lambda: "3 files" in text_of(app))


async def test_a_file_is_saved_where_a_person_says_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would break the lines of what is said wherever it likes
    async with cockpit(feed(FILES), "artifacts", run=RUN) as (app, pilot):
        await seen(pilot, lambda: "second" in text_of(app))

        async def save_to(path: Path) -> None:
            await pilot.press("s")
            await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
            line = app.screen.query_one(Typed)
            assert line.value == "a.txt"
            line.value = str(path)
            await pilot.press("enter")

        target = Path("mine.txt")
        await save_to(target)
        await seen(pilot, target.exists)
        await seen(pilot, lambda: "13 bytes in" in text_of(app))
        target.write_bytes(b"mine")
        await save_to(target)
        await seen(pilot, lambda: "is there already" in text_of(app))
        assert target.read_bytes() == b"mine"
        await pilot.press("s", "escape")
        assert list(tmp_path.iterdir()) == [tmp_path / target]


async def test_bytes_that_cannot_be_had_are_said_so_and_no_key_acts_on_them() -> None:
    fed = feed(FILES)
    fed.refusals["blob"] = NotFoundError(f"no bytes {WITNESS}\x1b[31m", code="blob.absent")
    async with cockpit(fed, "artifacts", run=RUN) as (app, pilot):
        await seen(pilot, lambda: f"not to be had: no bytes {WITNESS}\\x1b[31m" in text_of(app))
        await pilot.press("enter", "s", "o")
        assert len(app.screen_stack) == 1


async def test_a_run_without_files_and_no_other_run_say_so() -> None:
    async with cockpit(TwinFeed(run(RUN, {})), "artifacts", run=RUN) as (app, pilot):
        await seen(pilot, lambda: "has produced no files" in text_of(app))
        await pilot.press("enter", "s", "o", "x", "full_stop", "d")
        await seen(pilot, lambda: "there is no other run of files" in text_of(app))


@pytest.mark.requirement("C6")
async def test_no_foreign_text_acts_or_hides_in_the_list_or_the_preview() -> None:
    fed = feed({text: text.encode("utf-8", "replace") for text in HOSTILE}, {ALL_AT_ONCE: b"x"})
    async with cockpit(fed, "artifacts", (200, 60), run=RUN) as (app, pilot):
        pane = pane_of(app)
        await seen(pilot, lambda: pane.lines.count == len(set(HOSTILE)))
        for number in range(pane.lines.count):
            assert_harmless(pane._row(number, 300).plain)
            assert WITNESS in pane._row(number, 300).plain
        await pilot.press("G", "d")
        await seen(pilot, lambda: isinstance(app.screen, ChooseScreen))
        await pilot.press("enter", "G")
        await seen(pilot, lambda: "only there" in text_of(app))
        for line in text_of(app).splitlines():
            assert_harmless(line)


@pytest.mark.requirement("P3")
async def test_what_is_shown_is_neither_fetched_nor_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, where: asked.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where))
    place = "https://evil.example/p.png?q=what+was+said+in+confidence"
    text = f"![picture]({place}) [text that says otherwise]({place}) <{place}>\n"
    fed = feed({"a.md": text.encode(), "b.html": f'<img src="{place}"><a href="{place}">x</a>'.encode()})
    async with cockpit(fed, "artifacts", (200, 40), run=RUN) as (app, pilot):
        for _ in range(2):
            await seen(pilot, lambda: text_of(app).count(place) >= 2)
            await pilot.press("enter")
            await seen(pilot, lambda: isinstance(app.screen, PreviewScreen))
            assert text_of(app).count(place) >= 2  # where it leads stands there in full
            for strip in app.screen._compositor.render_strips():
                assert all(segment.style is None or segment.style.link is None for segment in strip)
            await pilot.press("escape", "j")
    assert asked == []


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("media_type", ["application/json", "text/markdown", "text/html", "text/x-diff"])
def test_colours_change_no_character_of_a_safe_text(media_type: str) -> None:
    data = ALL_AT_ONCE.replace("\0", "").encode("utf-8", "replace")  # with it, it would be no text
    rows = pages(data, "name", media_type, 80, hexadecimal=False)
    assert isinstance(rows, list)
    for row in rows:
        assert_harmless(row.plain)
        assert not any("link" in str(span.style) for span in row.spans)  # attacks.md P3: nothing to click
    assert "".join(row.plain for row in rows).count(WITNESS) == ALL_AT_ONCE.count(WITNESS)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../.ssh/authorized_keys", "authorized_keys"),
        ("a\\..\\b.txt", "b.txt"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("\x1b]0;x\x07", "0_x_"),
        ("///", "file"),
        ("résumé.txt", "r_sum_.txt"),
    ],
)
def test_a_suggested_name_is_one_file_in_this_folder(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_new_file_is_the_persons_own(tmp_path: Path) -> None:
    path = tmp_path / "new"
    written(path, b"data")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="there already"):
        written(link, b"data")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(FailedError, match="cannot be written"):
        written(tmp_path / "no" / "such", b"data")
    with pytest.raises(FailedError, match="no path"):
        written(Path("a\0b"), b"data")


@pytest.mark.requirement("C6")
def test_a_pager_is_given_nothing_that_acts() -> None:
    given = pager_input(ALL_AT_ONCE, ALL_AT_ONCE.encode("utf-8", "replace")).decode()
    for line in given.splitlines():
        assert_harmless(line)
    assert given.count(WITNESS) == 2 * ALL_AT_ONCE.count(WITNESS)
