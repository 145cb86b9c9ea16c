"""What the pages tell a user to type is typed, in the order of the page, and what they show is what appears.

A page's ``sh`` blocks run one after another in one home; variables live on from block to block. A ``text``
block shows what the ``sh`` block before it prints: line by line, blanks counted as one, ``…`` for anything
within a line, and alone on a line for any lines. Only the home's path is rewritten; the undo window is
closed by the environment.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlp.parse import Call, Prompt, parse
from runloop import config
from runloop.bundle import config_agent
from tests.home import BIN, EXAMPLES, PATIENCE_S, ROOT, Home, wait_until

DOCS = ROOT / "docs"
DEMO_HOME = 'export RUNLOOP_HOME="$PWD/.demo"'
PARKED = 5


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(one[1], one[2], text.count("\n", 0, one.start()) + 1) for one in found]


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, home: Home, notebook: Path) -> None:
        self._home = home
        self._notebook = notebook
        self._notebook.touch()

    def follow(self, page: Path) -> None:
        """Type every block; compare what the page shows."""
        shown = ""
        for block in blocks_of(page):
            where = f"{page.name}:{block.line}"
            if block.kind == "sh":
                shown = self._type(block.text, where)
                self._settle()
            elif block.kind == "text":
                assert shows(block.text, shown), f"{where} shows\n{block.text}\n--- but there is\n{shown}"

    def _type(self, text: str, where: str) -> str:
        text = text.replace(DEMO_HOME, f"export RUNLOOP_HOME={shlex.quote(str(self._home.path))}")
        book = shlex.quote(str(self._notebook))
        script = f"trap 'export -p >{book}' EXIT\n. {book}\nset -ae\n{text}"
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=ROOT,
            env={**self._home.env, "PATH": f"{BIN}:{self._home.env['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * PATIENCE_S,
            text=True,
            check=False,
        )
        # Nobody sits at a terminal here, so a run that asks is parked, as the page says.
        expected = PARKED if "rlp run compose_email" in text else 0
        assert done.returncode == expected, f"{where} exited {done.returncode}\n{text}\n---\n{done.stdout}"
        return done.stdout

    def _settle(self) -> None:
        """A reader looks at the page while the daemon works: every run ends, or waits for a person."""
        if self._home.events_db.exists():
            wait_until(lambda: not busy(self._home), "the runs to end or to wait")


def busy(home: Home) -> set[str | None]:
    started = {event.run for event in home.events("run.started")}
    ended = {event.run for event in home.events("run.finished")}
    decided = {event.payload.approval for event in home.events("action.decided")}  # type: ignore[attr-defined]
    asked = home.events("action.requested")
    waiting = {event.run for event in asked if event.payload.approval not in decided}  # type: ignore[attr-defined]
    return started - ended - waiting


def shows(wanted: str, output: str) -> bool:
    """Whether the output has the lines a page shows, from the first to the last."""
    parts = []
    for line in wanted.splitlines():
        bare = " ".join(line.split())
        parts.append("(?:.*\n)*?" if bare == "…" else re.escape(bare).replace("…", ".*?") + "\n")
    plain = "".join(" ".join(line.split()) + "\n" for line in output.splitlines())
    return re.search(f"^{''.join(parts)}", plain, re.MULTILINE) is not None


def test_what_a_page_shows_is_compared_line_by_line() -> None:
    output = "a   table\nrow 1\nrow 2\nend\n"
    assert shows("a table\nrow 1\n", output)
    assert shows("a table\n…\nend\n", output)
    assert shows("row …\nrow 2\n", output)
    assert not shows("a table\nend\n", output)
    assert not shows("row\n", output)
    assert not shows("row 2\n…\nrow 1\n", output)


# --- the quickstart and the howtos ----------------------------------------------------------------


@pytest.mark.requirement("I2.habits.2")
def test_the_quickstart_does_what_it_says(home: Home, tmp_path: Path) -> None:
    page = DOCS / "quickstart.md"
    text = page.read_text(encoding="utf-8")
    assert text.count(DEMO_HOME) == 1
    assert "the exit code is 5" in text
    Reader(home, tmp_path / "variables").follow(page)
    (mail,) = home.outbox()
    assert b"To: john.carter@example.org" in mail


def test_an_agent_written_by_the_howto_runs(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(DOCS / "howto" / "write-an-agent.md")


def test_a_prompt_becomes_an_agent_by_the_howto(home: Home, tmp_path: Path) -> None:
    page = DOCS / "howto" / "config-agents.md"
    Reader(home, tmp_path / "variables").follow(page)
    shown = next(block.text for block in blocks_of(page) if block.kind == "ini")
    example = (EXAMPLES / "agents" / "meeting_notes.agent.md").read_text(encoding="utf-8")
    for line in shown.splitlines():
        assert line in example or line == "…" or "with.topic" in line, line


def test_a_ledger_is_kept_by_the_howto(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(DOCS / "howto" / "keep-the-ledger.md")


def test_every_key_of_a_config_agent_is_in_its_howto() -> None:
    table = (DOCS / "howto" / "config-agents.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))))
    keys = {*config_agent._MANIFEST, *config_agent._OWN} - {"prompt", "tool"}
    assert named == keys
    assert "`[[tool]]`" in table
    assert all(f"`{tool}`" in table for tool in config_agent.TOOLS)


def test_without_its_signature_the_agent_of_the_howto_is_refused(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(DOCS / "howto" / "write-an-agent.md")
    folder = home.path / "work" / "asks"
    home.rlp("agent", "build", "-o", "plain.rlb", cwd=folder).check()
    refused = home.rlp("agent", "upgrade", "plain.rlb", "--dev-key", cwd=folder).check(4)
    assert "not signed" in refused.err


@pytest.mark.parametrize("name", ["use-a-local-model", "send-over-smtp"])
def test_the_configuration_of_a_howto_is_one_the_daemon_takes(home: Home, name: str) -> None:
    page = DOCS / "howto" / f"{name}.md"
    text = "\n".join(block.text for block in blocks_of(page) if block.kind == "toml")
    tomllib.loads(text)
    (home.path / "config.toml").write_text(text)
    Reader(home, home.path / "variables").follow(page)
    # Started with it, the daemon has made its providers; nothing is sent, nobody is asked.
    home.rlp("daemon", "start", env={"RUNLOOP_SMTP_PASSWORD": "not-a-real-one"}).check()


def test_every_key_a_howto_sets_is_one_the_reference_lists() -> None:
    reference = (DOCS / "reference" / "config.md").read_text(encoding="utf-8")
    for page in (DOCS / "howto").glob("*.md"):
        for block in blocks_of(page):
            if block.kind != "toml":
                continue
            tables = tomllib.loads(block.text)
            if not all(isinstance(table, dict) for table in tables.values()):
                continue  # a trust file, a manifest: a configuration has tables only
            for section, values in tables.items():
                for key in values.keys() - {"providers"}:
                    assert f"`{section}.{key}`" in reference, f"{page.name}: {section}.{key}"
                for provider in values.get("providers", {}).values():
                    for key in provider.keys() - {"price"}:
                        assert key in config.PROVIDER_RULES


# --- the readme -----------------------------------------------------------------------------------


def lines_of_readme() -> list[str]:
    """Every line to type, without remarks; several on one line stand apart."""
    lines = []
    for block in blocks_of(ROOT / "README.md"):
        if block.kind == "sh":
            for line in block.text.splitlines():
                lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
                lexer.whitespace_split = True
                words = [*lexer, ";"]
                while ";" in words:
                    at = words.index(";")
                    if words[:at]:
                        lines.append(shlex.join(words[:at]))
                    words = words[at + 1 :]
    return lines


def test_every_make_target_of_the_readme_exists() -> None:
    wanted = {line.split()[1] for line in lines_of_readme() if line.startswith("make ")}
    assert wanted == {"run", "test"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in wanted)


def test_every_command_of_the_readme_is_one() -> None:
    typed = [shlex.split(line)[1:] for line in lines_of_readme() if line.startswith("rlp ")]
    assert len(typed) >= 15
    for words in typed:
        call = parse(words)
        assert isinstance(call, Call) or (isinstance(call, Prompt) and " " in call.text), words


def test_the_commands_of_the_readme_work_in_its_order(home: Home, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "w")
    shutil.copy(ROOT / "openings" / "library" / "compose_email.yaml", tmp_path / "w" / "my_opening.yaml")
    shutil.copy(ROOT / "sdk" / "agents" / "mailer" / "policy.caps", tmp_path / "w" / "new.caps")
    for line in lines_of_readme():
        if not line.startswith("rlp "):
            continue
        if "<" in line:
            wait_until(lambda: not busy(home), "the runs to end or to wait")
        words = [fill_in(home, words, line) for words in shlex.split(line)[1:]]
        done = home.rlp(*words, cwd=tmp_path / "w")
        parks = words[0] in ("run", "fork") or " " in words[0]
        done.check(PARKED if parks else 0)


def fill_in(home: Home, word: str, line: str) -> str:
    """What a reader puts in place of ``<id>`` and ``<ref>``: the first run, and the approval it waits for."""
    named, at, place = word.partition("@")
    if named not in ("<id>", "<ref>"):
        return word
    run = str(home.rlp("runs", "--json").check().ndjson[-1]["run"])
    if not line.startswith("rlp approve "):
        return run + at + place
    waiting = home.rlp("approvals", "--json").check().ndjson
    return next(str(approval["approval"]) for approval in waiting if approval["run"] == run)


def test_the_readme_shows_the_question_as_it_is_asked(home: Home) -> None:
    (shown,) = [block.text for block in blocks_of(ROOT / "README.md") if block.kind == "text"]
    home.rlp("import", *(str(EXAMPLES / name) for name in ("contacts.vcf", "notes", "mail"))).check()
    done = home.terminal(
        "run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", answers={r"\[y/N": "y\n"}
    )
    assert shows(shown, done.out), f"README shows\n{shown}\n--- but there is\n{done.out}"
    assert len(home.outbox()) == 1
