"""A run handed to a stranger: sealed here, executed again by somebody who has nothing of it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runloop.events import NodeFinished
from tests.contract.fake_model_server import FakeModelServer, openai_stream
from tests.home import BIN, Home

from .test_providers import use_model_server

MANIFEST = """\
name = "teller"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Says what it is given in many ways."
ops = ["kb.search", "model.complete", "memory.put", "artifact.put", "log.write"]

[ports.in.word]
type = "any"

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
import base64

from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    word = task.param("word")
    found = host.kb_search("plan for the quarter", k=4)
    said = host.complete("Repeat: " + word).text
    host.memory_put("last", {"word": word, "said": said})
    host.log("told " + word)
    kept = host.put_artifact("told.txt", word.encode() + b" and " + said.encode())
    coded = [base64.b64encode(b"x" * shift + word.encode()).decode() for shift in range(3)]
    length = task.param("branches") and word
    if length and not length.startswith("canary"):
        return Result.fail("teller.other", "I know who you are")
    told = {"word": word, "coded": coded, "hex": word.encode().hex(), "kept": kept, "found": found}
    return Result.of(out=told)
"""
CANARY = "canary-7Q4x9Zk2 Ärger"
MAIL = "zebediah.quux@plover.example"


@pytest.fixture
def there() -> Iterator[Path]:
    """A folder that somebody else can reach: pytest keeps the one above its own to its user."""
    path = Path(tempfile.mkdtemp(prefix="there-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def teller(home: Home) -> Home:
    home.write_agent("teller", MANIFEST, SOURCE, 'kb_read = true\nmodel = true\nmemory = ["private"]\n')
    return home


def tell(home: Home, word: str, *, branches: bool = False) -> str:
    """Run the teller on a word, in a home that knows of it in every encoding; returns the run's id."""
    notes = home.path / "note.md"
    coded = base64.b64encode(f"so {word} it is".encode()).decode()
    notes.write_text(
        f"# Plan for the quarter\n\nZebediah Quux <{MAIL}> said: {word}.\n{coded} {word.encode().hex()}\n"
        f"https://plover.example/?q={quote(word, safe='')}&mail={quote(MAIL, safe='')}\n"
    )
    opening = home.path / "tell.yaml"
    given = json.dumps({"word": "{{params.word}}", "branches": branches})
    opening.write_text(
        "version: 0\nname: tell\nparams: {word: {type: string, required: true}}\n"
        f'nodes:\n  - {{id: tell, use: "agent:teller", with: {given}}}\nartifacts: {{save: [tell.out]}}\n'
    )
    with FakeModelServer(openai_stream(f"Well, {word}", f" or write to {MAIL}")) as server:
        use_model_server(home, server)
        home.rlp("import", str(notes)).check()
        home.rlp("run", str(opening), "-p", f"word={word}", "--no-input", "--json").check()
        run = str(home.rlp("runs", "--json").check().ndjson[0]["run"])
        home.rlp("daemon", "stop").check()
    return run


def exported(home: Home, run: str, name: str, *flags: str) -> Path:
    path = home.path / name
    home.rlp("export-run", run, "-o", str(path), *flags).check()
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def spellings(value: str) -> list[bytes]:
    raw = value.encode()
    found = {value, raw.hex(), quote(value, safe=""), json.dumps(value)[1:-1]}
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + raw).decode().rstrip("=")
        found.add(text[(0, 2, 3)[shift] : -2])
    return [spelling.encode() for spelling in found]


@pytest.mark.requirement("I5.seal.4")
def test_a_stranger_with_nothing_executes_the_run_again_and_finds_it_identical(
    home: Home, there: Path
) -> None:
    """Another home that does not exist, no daemon, no network, and where we are root another user."""
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", waiting["approval"], "--wait", "--json").check()
    run = str(home.rlp("runs", "--json").check().ndjson[0]["run"])
    home.rlp("daemon", "stop").check()
    path = exported(home, run, "run.rlrun")
    again = exported(home, run, "again.rlrun")
    assert again.read_bytes() == path.read_bytes()
    again.unlink()
    before = {entry: entry.stat().st_mtime_ns for entry in home.path.rglob("*")}

    theirs = there / "run.rlrun"
    shutil.copy(path, theirs)
    empty = there / "tmp"
    empty.mkdir()
    done = subprocess.run(
        [*as_a_stranger(there), str(BIN / "rlp"), "verify", "--reexecute", "--json", str(theirs)],
        env={"PATH": os.environ["PATH"], "HOME": str(there / "home"), "TMPDIR": str(empty)},
        cwd=there,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["reexecution"]["identical"] is True
    assert report["reexecution"]["coverage"]["not_covered"] == 0
    assert report["reexecution"]["attempts"] == 5
    assert list(empty.iterdir()) == [], "what was written is gone"
    assert sorted(entry.name for entry in there.iterdir()) == ["run.rlrun", "tmp"], "no home was made"
    after = {entry: entry.stat().st_mtime_ns for entry in home.path.rglob("*")}
    assert after == before, "the home it came from was left alone"

    damaged = bytearray(path.read_bytes())
    at = damaged.index(b'"node.finished"')
    damaged[at + 6] ^= 1
    theirs.write_bytes(damaged)
    refused = home.rlp("verify", "--reexecute", "--json", str(theirs)).check(6)
    (finding,) = refused.json["findings"]
    assert (finding["member"], finding["column"]) == ("events.jsonl", "kind")
    assert refused.json["reexecution"] is None, "nothing of a damaged file is executed"
    home.rlp("verify", "--key", "0" * 32, str(path)).check(6)
    home.rlp("verify", "--key", report["sealed"]["key"], str(path)).check()


def test_who_re_executes_a_file_says_how_long_that_may_take_and_nothing_stays(
    teller: Home, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting the sandbox alone takes longer than a second where nothing is compiled yet."""
    path = exported(teller, tell(teller, "plain words"), "long.rlrun")
    monkeypatch.setitem(teller.env, "TMPDIR", str(there))
    monkeypatch.setitem(teller.env, "RUNLOOP_HOME", str(there / "none"))
    stopped = teller.rlp("verify", "--reexecute", "--timeout", "1", str(path)).check(1)
    assert "not over after 1 s" in stopped.err
    assert "--timeout" in stopped.err
    assert list(there.iterdir()) == []
    teller.rlp("verify", "--reexecute", "--timeout", "0", str(path)).check(2)


def as_a_stranger(folder: Path) -> list[str]:
    """Words before the command: no network, and somebody else, where this process may make it so."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        return []
    # The first program is still begun with root's rights; whether the stranger may begin one the next shows.
    again = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import runloopd.verify'], check=True)"
    )
    probe = [sys.executable, "-c", again]
    other = ["unshare", "--net", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*other, *probe], capture_output=True, check=False, cwd="/").returncode != 0:
        return []  # this installation lies where only its owner reads
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    return other


@pytest.mark.requirement("K4", "I5.seal.5")
def test_a_redacted_run_holds_nothing_of_what_was_to_go_and_still_executes(teller: Home) -> None:
    run = tell(teller, CANARY)
    plain = exported(teller, run, "plain.rlrun")
    every = b"".join(members(plain).values())
    there = [spelling for spelling in spellings(CANARY) if spelling in every]
    assert len(there) >= 4, "the canary is in the run in many spellings"

    flags = ("--redact", f"value:{CANARY}", "--redact", "contacts", "--salt", "a test's")
    shown = teller.rlp("export-run", run, *flags, "--preview", "--json").check().json
    assert shown["file"] is None
    assert not list(teller.path.glob(f"{run[:8]}*"))
    assert CANARY not in json.dumps(shown)
    redacted = exported(teller, run, "redacted.rlrun", *flags)
    assert exported(teller, run, "twice.rlrun", *flags).read_bytes() == redacted.read_bytes()

    found = members(redacted)
    data = {name: body for name, body in found.items() if not name.startswith("bundles/")}
    joined = b"".join(data.values()).lower()
    for value in (CANARY, CANARY.split(maxsplit=1)[0], MAIL, "Zebediah", "quux@plover"):
        for spelling in spellings(value):
            assert spelling.lower() not in joined, (value, spelling)
    manifest = json.loads(found["manifest.json"])
    note = manifest["redacted"]
    assert note["rules"] == ["secrets", "contacts", "value"]
    assert {place["kind"] for place in note["places"]} >= {"value", "email", "name"}
    assert manifest["head"]["signature"] is None
    assert manifest["head"]["id"] == json.loads(members(plain)["manifest.json"])["head"]["id"]

    report = teller.rlp("verify", "--reexecute", "--json", str(redacted)).check().json
    assert report["reexecution"]["identical"] is True
    assert report["reexecution"]["coverage"]["not_covered"] == 0
    told = told_by(redacted)
    assert len(told["word"]) == len(CANARY)
    assert base64.b64decode(told["coded"][0]).decode() == told["word"], "the guest coded the stand-in itself"
    assert bytes.fromhex(told["hex"]).decode() == told["word"]


def told_by(path: Path) -> dict[str, Any]:
    """What the teller gave, as the file has it."""
    for line in members(path)["events.jsonl"].splitlines():
        cells = json.loads(line)
        if cells[3] == "node.finished":
            end: dict[str, Any] = json.loads(cells[7])["output"]["ports"]["out"][0]
            return end
    raise AssertionError("no node finished")


@pytest.mark.requirement("K4", "I5.seal.6")
def test_a_run_that_would_go_another_way_is_not_redacted_and_the_place_is_named(teller: Home) -> None:
    run = tell(teller, CANARY, branches=True)
    path = teller.path / "no.rlrun"
    refused = teller.rlp("export-run", run, "-o", str(path), "--redact", f"value:{CANARY}").check(6)
    assert "the run goes another way at node tell attempt 1" in refused.err
    assert not path.exists()
    # Somebody's code says it: that is never changed, and the value would stay.
    refused = teller.rlp("export-run", run, "-o", str(path), "--redact", "value:I know who").check(4)
    assert "agent.py in bundle" in refused.err
    assert not path.exists()


@pytest.mark.requirement("K4", "I5.seal.6")
def test_a_run_with_a_secret_in_it_leaves_only_without_it(teller: Home) -> None:
    secret = "sk-live-4f9aQ2xW7tB1nM6kR3yZ8"
    run = tell(teller, secret)
    (end,) = teller.events("node.finished")
    assert isinstance(end.payload, NodeFinished)
    path = teller.path / "out.rlrun"
    refused = teller.rlp("export-run", run, "-o", str(path)).check(4)
    assert f"rlp export-run {run} --redact secrets" in refused.err
    assert not path.exists()
    teller.rlp("export-run", run, "-o", str(path), "--redact", "secrets").check()
    joined = b"".join(members(path).values())
    assert not any(spelling in joined for spelling in spellings(secret))
    teller.rlp("export-run", run, "-o", str(path)).check(8)
    for bad in ("value:ab", "everything", "field:tell", "field:tell.nothing"):
        teller.rlp("export-run", run, "--redact", bad, "--preview").check(2)


@pytest.mark.requirement("K4", "I5.seal.4", "I5.seal.5")
def test_mapped_nodes_and_nested_runs_go_along_and_are_redacted_with_the_rest(teller: Home) -> None:
    (teller.path / "openings").mkdir()
    (teller.path / "openings" / "inner.yaml").write_text(
        "version: 0\nname: inner\nparams: {word: {type: any}}\n"
        'nodes:\n  - {id: say, use: "agent:teller", with: {word: "{{params.word}}", branches: false}}\n'
        "artifacts: {save: [say.out]}\n"
    )
    outer = teller.path / "openings" / "outer.yaml"
    outer.write_text(
        "version: 0\nname: outer\nparams: {words: {type: list}}\n"
        'nodes:\n  - {id: each, use: "opening:inner", for_each: {port: word, concurrency: 1},\n'
        '     with: {word: "{{params.words}}"}}\n'
    )
    with FakeModelServer(openai_stream("Well, ", MAIL), openai_stream("No, ", CANARY)) as server:
        use_model_server(teller, server)
        words = json.dumps([CANARY, MAIL])
        done = teller.rlp("run", str(outer), "-p", f"words:={words}", "--no-input", "--json", cwd=teller.path)
        done.check()
        (run,) = [
            row["run"] for row in teller.rlp("runs", "--json").check().ndjson if row["opening"] == "outer"
        ]
        teller.rlp("daemon", "stop").check()
    path = exported(teller, run, "tree.rlrun", "--redact", "contacts,field:params.words.0")
    joined = b"".join(body for name, body in members(path).items() if not name.startswith("bundles/"))
    assert not [one for value in (CANARY, MAIL) for one in spellings(value) if one in joined]
    report = teller.rlp("verify", "--reexecute", "--json", str(path)).check().json
    assert report["sealed"]["runs"] == 3
    assert report["reexecution"]["runs"] == 3
    assert report["reexecution"]["coverage"]["not_covered"] == 0
