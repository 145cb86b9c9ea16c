"""An agent served as it is being written: each good build takes its place, a broken one changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from runloop.events import AgentInstalled
from tests.home import BIN, PATIENCE_S, Home

CONFIG = """+++
name = "summer"
version = "0.1.0"
description = "Says the first sentence"
template = "In short: {{with.text | sentence}}"
+++
Say the first sentence of the text.
"""
OPENING = """
version: 0
name: try_it
params: {text: {type: string}}
nodes:
  - {id: sum, use: "agent:summer", with: {text: "{{params.text}}"}}
artifacts: {save: [sum.out]}
"""


def first_build(home: Home, place: Path, source: str) -> str:
    """Serve it for the first time, which a person allows; returns its digest."""
    parked = home.rlp("dev", source, "--once", cwd=place).check(5)
    home.allow(parked.err.partition("rlp approve ")[2].split()[0]).check()
    return served(home)[-1].bundle


def served(home: Home) -> list[AgentInstalled]:
    return [cast(AgentInstalled, event.payload) for event in home.events("agent.installed")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "summer.agent.md").write_text(CONFIG)
    (tmp_path / "opening.yaml").write_text(OPENING)
    return tmp_path


@pytest.mark.requirement("I3.config.1")
def test_a_config_agent_is_one_file_that_is_served_run_and_replayed(home: Home, place: Path) -> None:
    first_build(home, place, "summer.agent.md")
    ran = home.rlp("run", "opening.yaml", "-p", "text=Rain fell. Then snow.", "--json", cwd=place).check()
    assert "In short: Rain fell." in ran.out
    (started,) = home.events("run.started")
    assert home.rlp("replay", str(started.run), "--json").check().json["identical"] is True


def test_the_next_build_serves_without_a_question_unless_it_may_do_more(home: Home, place: Path) -> None:
    first = first_build(home, place, "summer.agent.md")
    source = place / "summer.agent.md"
    source.write_text(CONFIG.replace("In short", "Shortly"))
    home.rlp("dev", str(source), "--once").check()
    assert [fact.how for fact in served(home)] == ["install", "swap"]
    assert served(home)[-1].replaces == first
    assert (
        "Shortly: Rain."
        in home.rlp("run", "opening.yaml", "-p", "text=Rain.", "--json", cwd=place).check().out
    )
    source.write_text(
        CONFIG.replace('version = "0.1.0"', 'version = "0.1.0"\nkb = ["notes"]\ntools = ["kb.search"]')
    )
    asked = home.rlp("dev", str(source), "--once").check(5)
    assert "waits for a person" in asked.err
    assert len(served(home)) == 2


@pytest.mark.requirement("I3.dev.1")
def test_a_broken_build_leaves_the_last_good_one_serving_and_says_why(home: Home, place: Path) -> None:
    first_build(home, place, "summer.agent.md")
    source = place / "summer.agent.md"
    source.write_text(CONFIG.replace("template", "templat"))
    broken = home.rlp("dev", str(source), "--once").check(2)
    assert "broken" in broken.err
    assert "did you mean 'template'?" in broken.err
    assert (
        "In short: Rain."
        in home.rlp("run", "opening.yaml", "-p", "text=Rain.", "--json", cwd=place).check().out
    )


def test_an_output_that_does_not_fit_the_ports_fails_and_replays_identically(home: Home, place: Path) -> None:
    folder = place / "liar"
    home.rlp("agent", "scaffold", "liar", cwd=place).check()
    source = folder / "agent.py"
    source.write_text(
        source.read_text().replace("return Result.of(\n        out={", "return Result.of(\n        wrong={")
    )
    assert "wrong={" in source.read_text()
    first_build(home, place, "liar")
    home.rlp("run", "opening.yaml", "-p", "text=todo: x", "--json", cwd=folder).check(1)
    (ended,) = home.events("node.finished")
    assert "no output port 'wrong'" in str(ended.payload)
    assert home.rlp("replay", str(ended.run), "--json").check().json["identical"] is True


@contextmanager
def watching(home: Home, source: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """``rlp dev --json`` under way, and what it tells, line by line."""
    command = [str(BIN / "rlp"), "dev", str(source), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=home.env) as process:
        assert process.stdout is not None
        try:
            yield (json.loads(line) for line in process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(PATIENCE_S) in (0, 130)
            finally:
                process.kill()


@pytest.mark.requirement("I3.dev.1")
def test_every_save_is_built_and_served_while_it_watches(home: Home, place: Path) -> None:
    first_build(home, place, "summer.agent.md")
    source = place / "summer.agent.md"
    with watching(home, source) as told:
        assert next(told)["state"] == "serving"
        source.write_text(CONFIG.replace("In short", "Shortly"))
        second = next(told)
        assert (second["state"], second["bundle"]) == ("serving", served(home)[-1].bundle)
        source.write_text("nonsense")
        broken = next(told)
        assert (broken["state"], broken["bundle"]) == ("broken", second["bundle"])
        assert broken["error"]["code"] == "agent.lint"
        _written(place, CONFIG).replace(source)  # as editors save: another file takes the place
        assert next(told)["state"] == "serving"
    assert [fact.how for fact in served(home)] == ["install", "swap", "swap"]


def _written(place: Path, text: str) -> Path:
    path = place / "fresh~"
    path.write_text(text)
    return path
