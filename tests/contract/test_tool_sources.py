"""Every source of tools keeps the same promises; the host's own on real files, a real git, a real sandbox."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pog.importers import parse
from runloop.bundle.json_schema import read_schema
from runloop.caps.policy import Policy, parse_policy
from runloop.errors import RunloopError
from runloop.testing import ManualClock
from runloopd.broker.ports import Delta
from runloopd.broker.providers.files import Files
from runloopd.broker.testing import ScriptedMail, ScriptedWeb
from runloopd.broker.toolbox import FAMILIES, Offer, ToolContext, ToolError, ToolResult
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.contract import Sample, calling, check_bundle, check_source
from runloopd.broker.tools.family import Family
from runloopd.broker.tools.host import host_tools
from runloopd.broker.tools.notify_tools import Desktop

Call = Callable[..., Any]


class Knowledge:
    """What mail and calendar ask of the knowledge base."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def search(self, query: str, k: int, kinds: list[str], *, raw: bool) -> list[dict[str, Any]]:
        self.asked.append((query, k, kinds, raw))
        return [{"id": "m1", "title": "Rollout", "snippet": "on Monday", "label": "import:mail", "event": 7}]

    async def query(self, sql: str, params: list[Any], limit: int, **more: Any) -> dict[str, Any]:
        self.asked.append((params, limit, more))
        row = {"title": "Stand-up", "starts": "x", "ends": "y", "location": "", "all_day": 0}
        return {"columns": list(row), "rows": [row], "truncated": False}


@dataclass
class Host:
    """The host's tools, on a folder of their own."""

    folder: Path
    sources: tuple[Family, ...]
    web: ScriptedWeb
    deltas: list[Delta]
    clock: ManualClock
    sandbox: Bubblewrap

    def offer(self, name: str) -> tuple[Family, Offer]:
        return next((s, offer) for s in self.sources for offer in s.offers() if offer.name == name)

    async def call(self, name: str, args: dict[str, Any], grants: str = "", **more: Any) -> Any:
        source, offer = self.offer(name)
        assert (why := offer.accepts.misfit(args)) is None, why
        policy = self.policy() if not grants else parse_policy(f"[capabilities]\n{grants}")
        result = await source.call(offer, args, calling(policy, args=args, **more))
        assert offer.returns is not None and offer.returns.misfit(result.value) is None
        return result.value

    async def code(self, name: str, args: dict[str, Any], grants: str = "", **more: Any) -> str:
        with pytest.raises(RunloopError) as caught:
            await self.call(name, args, grants, **more)
        return caught.value.named_code

    def policy(self) -> Policy:
        return parse_policy(f'[capabilities]\nfs_rw = ["{self.folder}"]\nexec = ["/usr/bin/wc", "sh", "cat"]')


@pytest.fixture
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    folder = tmp_path_factory.mktemp("granted")
    state = tmp_path_factory.mktemp("state")
    (folder / "a.txt").write_text("first line\nSecond LINE\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("another line\n")
    clock, deltas = ManualClock(), list[Delta]()
    async with AsyncExitStack() as stack:
        sandbox, changes, files = Bubblewrap([state]), Changes([state]), Files([state])
        for service in (sandbox, changes, files):
            stack.push_async_callback(service.close)
        web = ScriptedWeb()
        sources = host_tools(
            files=files,
            changes=changes,
            sandbox=sandbox,
            web=web,
            mail=ScriptedMail(),
            knowledge=cast("Any", Knowledge()),
            on_delta=deltas.append,
            clock=clock,
            desktop=Desktop({}),
        )
        yield Host(folder, sources, web, deltas, clock, sandbox)


def git(repo: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repo), "-c", "user.name=T", "-c", "user.email=t@example.org", *words],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return done.stdout.strip()


@pytest.fixture
def repo(host: Host) -> Path:
    made = host.folder / "repo"
    made.mkdir()
    git(made, "init", "-q", "-b", "main")
    (made / "readme").write_text("one\n")
    git(made, "add", ".")
    git(made, "commit", "-qm", "The beginning")
    return made


# --- the contract ---------------------------------------------------------------------------------


def samples(host: Host, repo: Path) -> list[Sample]:
    """A call that works of every tool of the host that can be called without a server."""
    at, own = str(host.folder), host.policy()
    kb = parse_policy("[capabilities]\nkb_read = true")

    def sample(tool: str, args: dict[str, Any], grants: Policy = own, **more: Any) -> Sample:
        return Sample(tool=tool, args=args, context=calling(grants), needs_rights=True, **more)

    return [
        sample("files.read", {"path": f"{at}/a.txt"}),
        sample("files.list", {"path": at}),
        sample("files.stat", {"path": at}),
        sample("files.search", {"path": at, "text": "line"}),
        sample("files.write", {"path": f"{at}/new.txt", "text": "x"}),
        sample("files.move", {"path": f"{at}/new.txt", "to": f"{at}/old.txt"}),
        sample("files.delete", {"path": f"{at}/old.txt"}),
        replace(
            sample("shell.run", {"line": "sleep 60", "timeout_ms": 30_000}, waits=True), needs_rights=False
        ),
        sample("exec.run", {"argv": ["/usr/bin/wc", "-l"], "stdin": "a\n", "cwd": at}),
        sample("exec.ask", {"argv": ["sh", "-c", "sleep 60"]}, waits=True),
        sample("git.status", {"repo": str(repo)}),
        sample("git.log", {"repo": str(repo)}),
        sample("git.diff", {"repo": str(repo)}),
        sample("git.show", {"repo": str(repo)}),
        sample("git.blame", {"repo": str(repo), "path": "readme"}),
        sample("mail.draft", {"path": f"{at}/d.eml", "to": ["a@example.org"], "subject": "S", "body": "B"}),
        Sample(tool="mail.search", args={"query": "rollout"}, context=calling(kb)),
        Sample(
            tool="calendar.list",
            args={"from": "2026-11-21", "to": "2026-11-22T00:00:00Z"},
            context=calling(kb),
        ),
        sample(
            "calendar.add",
            {"path": f"{at}/c.ics", "title": "Tea", "start": "2026-11-21", "end": "2026-11-22"},
        ),
        Sample(tool="notify.send", args={"title": "Done"}),
    ]


@pytest.mark.requirement("I6.host.1")
async def test_every_tool_of_the_host_keeps_the_contract(host: Host, repo: Path) -> None:
    by_family: dict[int, list[Sample]] = {}
    for sample in samples(host, repo):
        source, _ = host.offer(sample.tool)
        by_family.setdefault(id(source), []).append(sample)
    for source in host.sources:
        await check_source(source, by_family.get(id(source), []))
    called = {sample.tool for sample in samples(host, repo)}
    offered = {offer.name for source in host.sources for offer in source.offers()}
    # These need a server: their own tests have one.
    assert offered - called == {"http.get", "git.push", "git.commit"}


def test_every_family_of_the_host_is_known_to_be_no_place(host: Host) -> None:
    offered = {offer.name.partition(".")[0] for source in host.sources for offer in source.offers()}
    assert offered == FAMILIES


class Broken:
    """A source with one fault."""

    def __init__(self, **wrong: Any) -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
        accepts = read_schema(schema, [])
        given: dict[str, Any] = {"name": "mine.look", "description": "Looks.", "accepts": accepts}
        given |= {"input_schema": schema, "returns": accepts, "effect": "read", "confirm": False}
        self.value: Any = wrong.pop("value", {"n": 1})
        self.raises: Exception | None = wrong.pop("raises", None)
        self.kept: list[tuple[str, str]] = wrong.pop("withheld", [])
        self.twice = wrong.pop("twice", False)
        self.offered = Offer(**{**given, **wrong})

    def offers(self) -> list[Offer]:
        return [self.offered] * (2 if self.twice else 1)

    def withheld(self) -> list[tuple[str, str]]:
        return self.kept

    def permit(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> None:
        """It has nothing to say about rights."""

    def touches(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        return {}

    async def call(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> ToolResult:
        if self.raises is not None:
            raise self.raises
        return ToolResult(value=self.value)

    async def reconcile(self, offer: Offer, context: ToolContext) -> Any:
        return "absent"


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "Look"}, "qualified name"),
    "twice": ({"twice": True}, "one name"),
    "silent": ({"description": ""}, "no description"),
    "controls": ({"description": "a\x1b[2J"}, "control characters"),
    "sends": ({"effect": "send"}, "asks nobody"),
    "open": ({"input_schema": {"type": "object"}}, "does not know"),
    "resource": ({"resource": ("path",)}, "resources"),
    "result": ({"value": {"n": "one"}}, "does not fit"),
    "huge": ({"value": "x" * 2_000_000, "returns": None}, "2000002 bytes"),
    "withheld": ({"withheld": [("mine.look", "suspended")]}, "offered and withheld"),
    "rights": ({}, "without any right"),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.requirement("I6.host.1")
async def test_the_kit_finds_a_broken_promise_and_names_it(fault: str) -> None:
    wrong, words = BROKEN[fault]
    sample = Sample(tool=wrong.get("name", "mine.look"), args={"n": 1}, needs_rights=fault == "rights")
    with pytest.raises(AssertionError, match=words):
        await check_source(Broken(**wrong), [sample])


async def test_the_kit_passes_a_source_that_keeps_its_promises() -> None:
    await check_source(Broken(), [Sample(tool="mine.look", args={"n": 1})])


async def test_the_source_that_the_docs_show_keeps_the_contract() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "write-a-tool.md").read_text()
    (shown,) = (block for block in page.split("```python\n") if "words = Family" in block)
    names: dict[str, Any] = {}
    exec(shown.partition("```")[0], names)  # the docs' own
    await names["test_my_source_keeps_the_contract"]()


def test_the_kit_holds_a_bundle_to_its_samples() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "tools.md").read_text()
    text = page.partition("```json\n")[2].partition("```")[0].encode()
    good = Sample(tool="weather.get_forecast", args={"city": "Oslo"}, result={"forecast": "rain"})
    check_bundle(text, [good])
    with pytest.raises(AssertionError, match="arguments"):
        check_bundle(text, [replace(good, args={"town": "Oslo"})])
    with pytest.raises(AssertionError, match="result"):
        check_bundle(text, [replace(good, result={"celsius": 4})])


# --- files ----------------------------------------------------------------------------------------


async def test_files_are_found_by_what_is_in_them(host: Host) -> None:
    at = str(host.folder)
    found = await host.call("files.search", {"path": at, "text": "line"})
    assert [(Path(m["path"]).name, m["line"]) for m in found["matches"]] == [("a.txt", 1), ("b.txt", 1)]
    folded = await host.call("files.search", {"path": at, "text": "LINE", "ignore_case": True, "limit": 2})
    assert len(folded["matches"]) == 2 and folded["truncated"]


async def test_a_search_never_leaves_the_folder(host: Host, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a hidden line")
    (host.folder / "way").symlink_to(tmp_path)
    (host.folder / "hard.txt").hardlink_to(tmp_path / "secret.txt")
    found = await host.call("files.search", {"path": str(host.folder), "text": "hidden"})
    assert found["matches"] == []


async def test_a_file_is_moved_and_deleted_and_nothing_is_replaced(host: Host) -> None:
    one, two, sub = (str(host.folder / name) for name in ("a.txt", "sub/moved.txt", "sub/b.txt"))
    assert await host.code("files.move", {"path": one, "to": sub}) == "fs.changed"
    await host.call("files.move", {"path": one, "to": two})
    assert not Path(one).exists() and Path(two).read_text().startswith("first")
    await host.call("files.delete", {"path": two})
    assert not Path(two).exists() and sorted(p.name for p in Path(two).parent.iterdir()) == ["b.txt"]


@pytest.mark.requirement("F1")
@pytest.mark.parametrize("tool", ["files.delete", "files.move"])
@pytest.mark.parametrize("kind", ["outside", "link", "folder", "hardlink", "through_link"])
async def test_only_a_plain_file_below_a_grant_is_moved_or_deleted(
    host: Host, tmp_path: Path, tool: str, kind: str
) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (host.folder / "link").symlink_to(victim)
    (host.folder / "folder").symlink_to(tmp_path)
    (host.folder / "hard").hardlink_to(victim)
    path = {
        "outside": str(victim),
        "link": str(host.folder / "link"),
        "folder": str(host.folder / "sub"),
        "hardlink": str(host.folder / "hard"),
        "through_link": str(host.folder / "folder" / "victim.txt"),
    }[kind]
    args = {"path": path} if tool == "files.delete" else {"path": path, "to": str(host.folder / "taken")}
    await host.code(tool, args)
    assert victim.read_text() == "mine" and (host.folder / "hard").exists() and (host.folder / "sub").is_dir()
    assert not (host.folder / "taken").exists()


async def test_whether_a_deletion_happened_can_be_told(host: Host) -> None:
    source, offer = host.offer("files.delete")
    path = host.folder / "a.txt"
    told = calling(host.policy(), args={"path": str(path)})
    assert await source.reconcile(offer, told) == "unknown"
    await source.call(offer, {"path": str(path)}, told)
    assert await source.reconcile(offer, told) == "done"


# --- git ------------------------------------------------------------------------------------------


async def test_a_repository_is_looked_at(host: Host, repo: Path) -> None:
    (repo / "readme").write_text("two\n")
    (repo / "new file").write_text("x")
    at = {"repo": str(repo)}
    status = await host.call("git.status", at)
    assert {row["path"]: row["state"] for row in status["files"]} == {"readme": " M", "new file": "??"}
    assert status["branch"] == "main" and not status["clean"]
    (commit,) = (await host.call("git.log", at))["commits"]
    assert (commit["author"], commit["subject"], commit["commit"]) == (
        "T",
        "The beginning",
        git(repo, "rev-parse", "HEAD"),
    )
    assert "-one\n+two" in (await host.call("git.diff", at))["text"]
    assert "+one" in (await host.call("git.show", at))["text"]
    (line,) = (await host.call("git.blame", {**at, "path": "readme"}))["lines"]
    assert (line["line"], line["text"], line["commit"]) == (1, "one", commit["commit"])


async def test_a_commit_is_made_and_can_be_told_afterwards(host: Host, repo: Path) -> None:
    (repo / "readme").write_text("two\n")
    args = {"repo": str(repo), "message": "Say two\n\n# no comment", "paths": ["readme"]}
    source, offer = host.offer("git.commit")
    told = calling(host.policy(), args=args)
    assert await source.reconcile(offer, told) == "unknown"
    made = (await source.call(offer, args, told)).value["commit"]
    assert made == git(repo, "rev-parse", "HEAD")
    assert git(repo, "log", "-1", "--format=%s|%an") == "Say two|Runloop agent"
    assert git(repo, "status", "--porcelain") == ""
    assert await source.reconcile(offer, told) == "done"


HOSTILE = """
[core]
    fsmonitor = {touch}
    hooksPath = {repo}/hooks
    pager = {touch}
    editor = {touch}
    sshCommand = {touch}
    askPass = {touch}
    attributesFile = {repo}/.gitattributes
[diff]
    external = {touch}
[diff "evil"]
    command = {touch}
    textconv = {touch}
[filter "evil"]
    clean = {touch}
    smudge = {touch}
    process = {touch}
[merge "evil"]
    driver = {touch}
[log]
    showSignature = true
[commit]
    gpgSign = true
[gpg]
    program = {touch}
[credential]
    helper = {touch}
[alias]
    status = !{touch}
    log = !{touch}
[include]
    path = {repo}/more
"""


@pytest.mark.requirement("F3")
@pytest.mark.requirement("I6.host.2")
async def test_a_hostile_repository_has_nothing_run(host: Host, repo: Path) -> None:
    mark = repo / "RAN"
    touch = repo / "touch.sh"
    touch.write_text(f'#!/bin/sh\necho "$0 $@" >> {mark}\ncat\n')
    touch.chmod(0o755)
    config = HOSTILE.format(touch=touch, repo=repo)
    with (repo / ".git" / "config").open("a") as file:
        file.write(config)
    (repo / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    shutil.rmtree(repo / ".git" / "hooks", ignore_errors=True)
    for place in (repo / "hooks", repo / ".git" / "hooks"):
        place.mkdir()
        for name in (
            "pre-commit",
            "commit-msg",
            "post-commit",
            "prepare-commit-msg",
            "reference-transaction",
        ):
            shutil.copy(touch, place / name)
    (repo / "readme").write_text("changed\n")
    at = {"repo": str(repo)}
    for name, args in (
        ("git.status", at),
        ("git.log", at),
        ("git.diff", at),
        ("git.show", at),
        ("git.blame", {**at, "path": "readme"}),
        ("git.commit", {**at, "message": "x", "paths": ["readme"]}),
    ):
        await host.call(name, args)
        assert not mark.exists(), f"{name}: {mark.read_text()}"
    # The trap itself works: the same repository, with git as anybody runs it.
    (repo / "readme").write_text("again\n")
    subprocess.run(["git", "-C", str(repo), "diff"], capture_output=True, check=False)
    assert mark.exists()


@pytest.mark.parametrize(
    "args",
    [
        {"revision": "--output=/tmp/x"},
        {"revision": "-1"},
        {"revision": "HEAD --exec=id"},
        {"paths": ["../outside"]},
        {"paths": ["/etc/passwd"]},
    ],
    ids=["option", "dash", "words", "upwards", "absolute"],
)
async def test_no_argument_of_git_is_an_option_or_a_way_out(
    host: Host, repo: Path, args: dict[str, Any]
) -> None:
    assert await host.code("git.log", {"repo": str(repo), **args}) in ("tool.args", "fs.path")


async def test_a_push_goes_where_a_person_saw_and_nowhere_else(host: Host, repo: Path) -> None:
    commit = git(repo, "rev-parse", "HEAD")
    git(repo, "config", "url.https://evil.example/.insteadOf", "https://good.example/")
    seen: list[str] = []

    class Noted:
        def require(self, method: str, place: Any) -> None:
            seen.append(f"{method} {place.host}")

    args = {"repo": str(repo), "url": "https://good.example/x.git", "branch": "main", "commit": commit}
    grants = f'fs_ro = ["{repo}"]\nnet = ["evil.example"]'
    secret = SimpleNamespace(reveal=lambda: "token-1234")
    with pytest.raises(ToolError) as caught:
        await host.call("git.push", args, grants, net=Noted(), secrets={"runloop/git/token": secret})
    # It asked for the host it was told, which is not granted: the repository's own rule was not read.
    assert "good.example" in caught.value.message or "403" in caught.value.message
    assert "evil.example" not in caught.value.message and "token-1234" not in caught.value.message
    assert seen == ["POST good.example"]
    for wrong in ({"branch": "../x"}, {"commit": "HEAD" * 10}, {"url": "ext::sh -c id"}):
        assert await host.code("git.push", {**args, **wrong}, grants) in ("tool.args", "http.url")


# --- programs -------------------------------------------------------------------------------------


async def test_a_named_program_runs_unasked_and_an_interpreter_never(host: Host) -> None:
    done = await host.call("exec.run", {"argv": ["wc", "-c"], "stdin": "four"})
    assert (done["exit"], done["stdout"].strip(), done["truncated"]) == (0, "4", False)
    assert await host.code("exec.run", {"argv": ["sh", "-c", "true"]}) == "tool.args"
    assert (await host.call("exec.ask", {"argv": ["sh", "-c", "exit 3"]}))["exit"] == 3


@pytest.mark.parametrize(
    ("grants", "argv", "code"),
    [
        ('exec = ["wc"]', ["sh", "-c", "id"], "cap.denied"),
        ('exec = ["wc"]', ["/usr/bin/../bin/sh"], "cap.denied"),
        ('exec = ["wc"]', ["./wc"], "cap.denied"),
        ('exec = ["wc"]', ["no-such-program"], "cap.denied"),
        ('exec = ["no-such-program"]', ["no-such-program"], "tool.unavailable"),
        ("exec = true", ["wc"], "tool.args"),
        ('exec = ["env"]', ["env", "-S", "sh -c id"], "tool.args"),
        ('exec = ["python3"]', ["python3", "-c", "1"], "tool.args"),
        ('exec = ["find"]', ["find", ".", "-exec", "id", ";"], "tool.args"),
        ('exec = ["xargs"]', ["xargs", "id"], "tool.args"),
        ("time = true", ["wc"], "cap.denied"),
    ],
    ids=lambda value: "_".join(value).replace("/", ".")[:24] if isinstance(value, list) else None,
)
@pytest.mark.requirement("C2")
async def test_a_grant_names_a_program_and_is_widened_by_no_wrapper(
    host: Host, grants: str, argv: list[str], code: str
) -> None:
    assert await host.code("exec.run", {"argv": argv}, grants) == code


async def test_a_program_writes_only_where_it_is_granted(host: Host, tmp_path: Path) -> None:
    line = f"echo x > {host.folder}/made; echo x > {tmp_path}/made; cat {tmp_path}/secret"
    (tmp_path / "secret").write_text("hidden")
    done = await host.call("shell.run", {"line": line})
    assert (host.folder / "made").exists() and not (tmp_path / "made").exists()
    assert "hidden" not in done["stdout"]
    read = await host.call("shell.run", {"line": line}, f'fs_ro = ["{host.folder}"]')
    assert "Read-only" in read["stderr"]


async def test_a_program_that_was_ended_may_have_written(host: Host) -> None:
    args = {"line": "sleep 30", "timeout_ms": 200}
    for grants, outcome in (("", "unknown"), (f'fs_ro = ["{host.folder}"]', "absent")):
        with pytest.raises(ToolError) as caught:
            await host.call("shell.run", args, grants)
        assert (caught.value.named_code, caught.value.outcome) == ("tool.timeout", outcome)


# --- mail, calendar, notes ------------------------------------------------------------------------


async def test_a_draft_is_a_file_and_never_replaces_one(host: Host) -> None:
    args = {"path": f"{host.folder}/d.eml", "to": ["a@example.org"], "subject": "S", "body": "B"}
    await host.call("mail.draft", args)
    assert (host.folder / "d.eml").read_bytes().startswith(b"X-Unsent: 1\r\n")
    assert await host.code("mail.draft", args) == "fs.changed"
    assert await host.code("mail.draft", {**args, "path": f"{host.folder}/d.sh"}) == "tool.args"


async def test_an_event_is_added_to_a_calendar_that_others_can_read(host: Host) -> None:
    path = host.folder / "c.ics"
    first = {
        "path": str(path),
        "title": "Tea; with, comma\nEND:VEVENT\r\nBEGIN:VEVENT\x00",
        "start": "2026-11-21T10:00:00+01:00",
        "end": "2026-11-21T11:00:00+01:00",
        "location": "Ø" * 90,
    }
    await host.call("calendar.add", first)
    await host.call(
        "calendar.add",
        {"path": str(path), "title": "Off", "start": "2026-12-24", "end": "2026-12-25"},
        key="m" * 64,
    )
    assert max(map(len, path.read_bytes().split(b"\r\n"))) <= 75
    found = list(parse([path]))
    assert sorted((one.title, one.start) for one in found) == [  # type: ignore[attr-defined]
        ("Off", "2026-12-24"),
        ("Tea; with, comma END:VEVENT BEGIN:VEVENT", "2026-11-21T09:00:00+00:00"),
    ]
    for wrong in ({"end": "2026-11-20T10:00:00Z"}, {"start": "soon-ish-x"}, {"start": "2026-11-21T10:00:00"}):
        assert await host.code("calendar.add", {**first, **wrong}) == "tool.args"
    (host.folder / "a.ics").write_text("no calendar")
    assert await host.code("calendar.add", {**first, "path": f"{host.folder}/a.ics"}) == "tool.failed"


async def test_notes_are_plain_lines_and_few(host: Host) -> None:
    shown = await host.call("notify.send", {"title": "Done\x1b]0;x\x07", "text": "<b>two\nlines</b>"})
    assert shown == {"shown": ["terminal"]}
    assert host.deltas[0].text == "tester: Done ]0;x: <b>two lines</b>"
    for _ in range(5):
        await host.call("notify.send", {"title": "again"})
    assert await host.code("notify.send", {"title": "again"}) == "tool.failed"
    host.clock.advance(60_001)
    await host.call("notify.send", {"title": "again"})
