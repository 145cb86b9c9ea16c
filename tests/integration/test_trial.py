"""A trial: a stranger's bundle in a real worker, with its own limits, no rights of anybody, and no trace."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.authoring.build import draft
from runloop.authoring.cases import MAX_CASES
from runloop.authoring.toolchains.python import preloaded
from runloop.bundle.archive import ArchiveError, pack
from runloop.bundle.digest import read_bundle
from runloop.bundle.runner import read_pin, unpack
from runloop.config import shipped
from runloop.errors import ConflictError, RunloopError, UsageError
from runloopd.broker.quotas import Quotas
from runloopd.runs import trial as trials
from runloopd.runs.trial import MAX_WAITING, Trial, TrialCase
from runloopd.runtime.registry import Registry
from runloopd.runtime.supervisor import Runtime
from tests.home import CACHE_KEY
from tests.unit.authoring.folders import change, python_agent, write

AGENT = """
import runloop.agent as a
from runloop.host import HostRefused

@a.handler
def handle(task: a.Task, host) -> a.Result:
    todo = task.param("do", "")
    if todo == "loop":
        while True:
            pass
    if todo == "eat":
        return a.Result.of(out={"n": len(bytearray(10**9))})
    if todo == "deep":
        return handle(task, host)
    if todo == "storm":
        while True:
            host.call("progress", {"message": "m"})
    if todo == "big":
        return a.Result.of(out={"text": "x" * 900_000})
    if todo == "wrong":
        return a.Result.of(other=1)
    if todo == "call":
        return a.Result.of(out={"answer": host.call(task.param("op"), task.param("args", {}))})
    if todo == "open":
        open("/etc/passwd")
    return a.Result.of(out={"todo": todo})


@a.tool("asks.twice")
def twice(n: int) -> int:
    "Two times n."
    return 2 * n
"""


@pytest.fixture
def made(compiled: Path) -> Callable[..., Trial]:
    """A trial as the daemon makes it."""
    examine = Registry([], pins={}, runners={"python": read_pin(shipped("runner")).blake3}).examine

    async def prepared(path: Path) -> str:
        return str(path)

    def make(quotas: Quotas | None = None) -> Trial:
        return Trial(
            examine=examine,
            sandbox=lambda own: Runtime(
                cache_dir=own or compiled, mac_key=CACHE_KEY, max_workers=1, max_spares=0
            ),
            runners={"python": unpack(shipped("runner"), compiled)},
            prepare=prepared,
            quotas=quotas or Quotas(),
        )

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = python_agent(tmp_path)
    write(made, "agent.py", AGENT)
    write(made, "policy.caps", '[capabilities]\nkb_read = ["notes"]\n')
    change(made, "manifest.toml", 'ops = ["log.write"]', 'ops = ["log.write", "progress", "kb.search"]')
    change(made, "manifest.toml", "guest_ms = 5000", "guest_ms = 400")
    change(made, "manifest.toml", "max_host_calls = 16", "max_host_calls = 5")
    return made


async def tried(trial: Trial, folder: Path, *cases: dict[str, Any]) -> list[dict[str, Any]]:
    """Outcomes of cases given as what is under ``with``."""
    asked = [TrialCase(with_=case) for case in cases]
    answer = await trial.run(draft(folder).package(), asked, who="me")
    outcomes: list[dict[str, Any]] = answer["cases"]
    return outcomes


async def test_an_agent_runs_and_its_figures_are_told(made: Callable[..., Trial], folder: Path) -> None:
    first, again = await tried(made(), folder, {"do": "x"}, {"do": "x"})
    assert first["ok"] and first["ports"] == {"out": [{"todo": "x"}]}
    assert first["fuel"] > 0 and first["fuel"] == again["fuel"]
    assert first["calls"] == 0 and first["ms"] > 0


async def test_tools_are_called_and_described(made: Callable[..., Trial], folder: Path) -> None:
    answer = await made().run(
        draft(folder).package(),
        [TrialCase(op="tool", tool="asks.twice", args={"n": 21}), TrialCase(op="describe")],
        who="me",
    )
    tool, described = answer["cases"]
    assert tool["ports"] == {"result": [42]}
    assert [entry["id"] for entry in described["output"]["tools"]] == ["asks.twice"]


async def test_whatever_an_agent_does_one_case_ends_and_the_next_begins(
    made: Callable[..., Trial], folder: Path
) -> None:
    hostile = ("loop", "eat", "deep", "storm", "open", "wrong")
    outcomes = await tried(made(), folder, *({"do": word} for word in hostile), {"do": "fine"})
    codes = dict(zip(hostile, [outcome.get("code") for outcome in outcomes], strict=False))
    assert codes["loop"] == "guest.deadline"
    assert codes["wrong"] == "guest.output"
    assert codes["open"] == "agent.exception"
    assert all(codes.values())
    assert outcomes[3]["calls"] <= 5
    assert outcomes[-1]["ok"]


async def test_host_calls_are_judged_by_the_bundles_own_policy(
    made: Callable[..., Trial], folder: Path
) -> None:
    answers = {"kb.search": {"items": []}}
    cases = [
        ("kb.search", {"query": "x"}),
        ("kb.search", {"query": "x", "kinds": ["contact"]}),
        ("kb.search", {"query": 1}),
        ("mail.send", {"to": ["a@b.c"], "subject": "s", "body": "b"}),
        ("exec.run", {}),
    ]
    asked = [TrialCase(with_={"do": "call", "op": op, "args": args}, host=answers) for op, args in cases]
    answer = await made().run(draft(folder).package(), asked, who="me")
    allowed, *refused = answer["cases"]
    assert allowed["ports"] == {"out": [{"answer": {"items": []}}]} and allowed["denied"] == []
    assert [case["code"] for case in refused] == ["cap.denied", "op.args", "cap.denied", "op.unknown"]
    assert [case["denied"][0]["op"] for case in refused] == [
        "kb.search",
        "kb.search",
        "mail.send",
        "exec.run",
    ]


async def test_an_answer_that_is_missing_is_named(made: Callable[..., Trial], folder: Path) -> None:
    (outcome,) = await tried(made(), folder, {"do": "call", "op": "kb.search", "args": {"query": "x"}})
    assert outcome["unscripted"] == ["kb.search"]


async def test_an_agent_that_describes_itself_has_no_right_at_all(
    made: Callable[..., Trial], folder: Path
) -> None:
    write(
        folder,
        "agent.py",
        "import runloop.agent as a\nprint('import')\n"
        "@a.handler\ndef handle(task, host):\n  return {'out': {}}\n"
        "@a.tool('asks.me')\ndef me(x: str) -> str:\n  'Asks.'\n  return x\n",
    )
    answer = await made().run(draft(folder).package(), [TrialCase(op="describe")], who="me")
    (outcome,) = answer["cases"]
    assert outcome["ok"] and [denial["op"] for denial in outcome["denied"]] == ["log.write"]


async def test_a_quota_of_the_operator_ends_a_case(made: Callable[..., Trial], folder: Path) -> None:
    from runloop import config

    (outcome,) = await tried(made(Quotas(config.Quotas(calls=2))), folder, {"do": "storm"})
    assert outcome["code"] == "quota.exceeded"


async def test_outputs_that_no_frame_could_carry_are_left_out(
    made: Callable[..., Trial], folder: Path
) -> None:
    outcomes = await tried(made(), folder, *([{"do": "big"}] * 6))
    assert [outcome.get("code") for outcome in outcomes] == [
        None,
        None,
        None,
        None,
        "trial.output",
        "trial.output",
    ]


async def test_cases_that_have_not_begun_in_time_are_not_run(
    made: Callable[..., Trial], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "WALL_S", -1)
    (outcome,) = await tried(made(), folder, {"do": "x"})
    assert outcome["code"] == "trial.deadline"


@pytest.mark.parametrize("data", [b"", b"junk", b"\0" * 10_240])
async def test_what_is_no_bundle_is_refused(made: Callable[..., Trial], data: bytes) -> None:
    with pytest.raises(ArchiveError):
        await made().run(data, [TrialCase()], who="me")


async def test_size_number_and_ops_are_bounded(made: Callable[..., Trial], folder: Path) -> None:
    archive = draft(folder).package()
    for data, cases in (
        (b"x" * (trials.MAX_TRIED_BYTES + 1), [TrialCase()]),
        (archive, []),
        (archive, [TrialCase()] * (MAX_CASES + 1)),
        (archive, [TrialCase(op="install")]),
    ):
        with pytest.raises(UsageError):
            await made().run(data, cases, who="me")


async def test_only_so_many_may_wait_for_their_turn(made: Callable[..., Trial], folder: Path) -> None:
    trial, archive = made(), draft(folder).package()
    waiting = [asyncio.ensure_future(trial.run(archive, [TrialCase()], who="me")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ConflictError, match="too many"):
        await trial.run(archive, [TrialCase()], who="me")
    answers = await asyncio.gather(*waiting)
    assert all(answer["cases"][0]["ok"] for answer in answers)


async def test_a_component_that_is_none_is_refused_before_anything_runs(
    made: Callable[..., Trial], folder: Path
) -> None:
    files = dict(draft(folder).files)
    manifest = files["manifest.toml"].decode()
    component = manifest.replace('"python"', '"component"').replace("agent:handle", "agent.wasm")
    files |= {"manifest.toml": component.encode(), "agent.wasm": b"\0asm\x0d\0\1\0junk"}
    with pytest.raises(RunloopError) as caught:
        await made().run(pack(files), [TrialCase()], who="me")
    assert caught.value.named_code.startswith("component.")


IMPORTS = """
import importlib
from runloop.agent import Result, Task, handler

@handler
def handle(task: Task, host) -> Result:
    found = []
    for name in task.param("names"):
        try:
            importlib.import_module(name)
        except Exception:
            continue
        found.append(name)
    return Result.of(out={"found": found})
"""


async def test_what_lint_lets_an_agent_import_is_what_the_sandbox_has(
    made: Callable[..., Trial], folder: Path
) -> None:
    """Of the public standard library as this machine's Python knows it, and of what comes with Runloop."""
    write(folder, "agent.py", IMPORTS)
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")} - {"antigravity", "this"}
    asked = sorted(public | {name for name in preloaded() if not name.startswith("_")})
    (outcome,) = await tried(made(), folder, {"names": asked})
    assert set(outcome["ports"]["out"][0]["found"]) == {name for name in asked if name in preloaded()}


async def test_a_component_is_tried_and_nothing_of_it_stays(
    made: Callable[..., Trial], compiled: Path
) -> None:
    before = sorted(compiled.iterdir())
    files = read_bundle(shipped("agents") / "critic_c")
    asked = TrialCase(ports={"in": [{"to": ["a@b.c"], "subject": "Hello", "body": "A text of some length."}]})
    answer = await made().run(pack(files), [asked], who="me")
    (outcome,) = answer["cases"]
    assert outcome["ports"]["review"][0]["ok"] is True
    assert sorted(compiled.iterdir()) == before


async def test_an_agent_cannot_ask_for_more_time_or_memory_than_a_trial_has(
    made: Callable[..., Trial], folder: Path
) -> None:
    change(folder, "manifest.toml", "guest_ms = 400", "guest_ms = 600000")
    examine = Registry([], pins={}, runners={"python": "0" * 64}).examine
    limits = made()._limits(examine(draft(folder).files, folder))
    assert (limits.guest_ms, limits.memory_bytes, limits.host_calls) == (30_000, 64 * 1024 * 1024, 5)
