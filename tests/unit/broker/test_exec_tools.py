"""Tools that are programs, at the gate and in the real sandbox: what they see and say, who is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runloop.testing import ManualClock
from runloopd.broker.tool_results import MAX_RESULT_BYTES
from runloopd.broker.toolbox import TOOL_CODES
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.sandbox import Child, Layers, Program, ProgramResult
from tests.canary import found

from .test_mail import asked, decide
from .test_tool_ops import VALUE, agent
from .world import World, until, within

KEY = "runloop/tools/key"


def tool(
    *argv: str, needs: tuple[str, ...] = (), env: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A bundle's tool that runs a program."""
    return {
        "id": "box.run",
        "transport": {"kind": "exec", "argv": list(argv), **({"env": env} if env else {})},
        "input_schema": {"type": "object", "properties": {"a": {}}},
        "result_schema": True,
        "capabilities": [f"exec:{argv[0]}", *needs],
        **more,
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world with the real sandbox, and a folder of the user's."""
    home = tmp_path / "home"
    home.mkdir()
    sandbox = Bubblewrap([home])
    if sandbox.layers().missing:
        pytest.skip(f"no sandbox here: {sandbox.layers().missing}")
    made = World(home, ManualClock())
    made.programs = sandbox
    await made.start()
    await made.run()
    yield made
    await made.stop()
    await sandbox.close()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "note.txt").write_text("forty-two")
    return folder


async def call(world: World, given: dict[str, Any], grants: str, **args: Any) -> Any:
    caller = await agent(world, given, grants=grants)
    return (await world.call(caller, "tool.call", {"tool": "box.run", "args": args})).value


async def test_a_program_reads_json_and_answers_with_json(world: World) -> None:
    echo = tool("cat", effect="read")
    value = await call(world, echo, 'exec = ["cat"]', a={"deep": ["Grüezi", 1.5, None]})
    assert value == {"result": {"a": {"deep": ["Grüezi", 1.5, None]}}}
    assert world.kinds() == ["cap.audit", "hostcall.delivered"]


async def test_an_argument_is_a_word_and_no_shell_ever_reads_it(world: World) -> None:
    given = tool("printf", '"%s"', "{a}", effect="read")
    value = await call(world, given, 'exec = ["printf"]', a="$(id); `id` && x | y > z")
    assert value == {"result": "$(id); `id` && x | y > z"}


@pytest.mark.requirement("I6.tools.5")
@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_program_sees_the_folders_its_tool_names_and_writes_only_where_it_says_so(
    world: World, docs: Path, effect: str
) -> None:
    script = "import json,sys,pathlib;p=pathlib.Path(json.load(sys.stdin)['a']);"
    script += "print(json.dumps((p/'note.txt').read_text()));(p/'new.txt').write_text('x')"
    needs = (f"fs_rw:{docs}",)
    grants = f'exec = ["python3"]\nfs_rw = ["{docs}"]'
    given = tool("python3", "-c", script, needs=needs, effect=effect)
    if effect == "read":
        value = await call(world, given, grants, a=str(docs))
        assert value["code"] == "tool.failed" and "Read-only file system" in value["message"]
        assert not (docs / "new.txt").exists()
        return
    task = world.begin(
        await agent(world, given, grants=grants), "tool.call", {"tool": "box.run", "args": {"a": str(docs)}}
    )
    shown = json.loads(world.reader.blob((await asked(world)).content_blob))["sends"]
    assert shown["folders"] == [{"path": str(docs), "writable": True}], "python runs others: asked about"
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).value == {"result": "forty-two"}
    assert (docs / "new.txt").read_text() == "x"


async def test_a_plain_program_that_writes_where_it_may_asks_nobody(world: World, docs: Path) -> None:
    given = tool("touch", "--", "{a}", needs=(f"fs_rw:{docs}",), effect="write")
    grants = f'exec = ["touch"]\nfs_rw = ["{docs}"]'
    assert await call(world, given, grants, a=str(docs / "made")) == {"result": None}
    assert (docs / "made").exists()
    assert "hostcall.admitted" in world.kinds() and "action.requested" not in world.kinds()


async def test_a_folder_that_the_tool_does_not_name_is_not_there(world: World, docs: Path) -> None:
    given = tool("cat", "{a}", effect="read")
    grants = f'exec = ["cat"]\nfs_ro = ["{docs}"]'
    value = await call(world, given, grants, a=str(docs / "note.txt"))
    assert value["code"] == "tool.failed" and "No such file" in value["message"]


async def test_a_program_that_is_not_granted_is_not_run(world: World) -> None:
    value = await call(world, tool("cat", effect="read"), 'exec = ["ls"]')
    assert value["code"] == "cap.denied" and "box.run needs exec cat" in value["message"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["false"], "tool.failed"),
        (["echo", "not json"], "tool.result"),
        (["head", "-c", "2000000", "/dev/zero"], "tool.result"),
        (["cat", "/proc/1/root/etc/shadow"], "tool.failed"),
        (["no-such-program-here"], "tool.unavailable"),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
async def test_every_way_a_program_fails_has_a_code_of_the_list(
    world: World, argv: list[str], code: str
) -> None:
    value = await call(world, tool(*argv, effect="read"), f'exec = ["{argv[0]}"]')
    assert value["code"] == code and code in TOOL_CODES


async def test_without_a_sandbox_no_program_is_run(world: World) -> None:
    world.programs = None
    await world.restart()
    value = await call(world, tool("cat", effect="read"), 'exec = ["cat"]')
    assert value["code"] == "tool.sandbox"


async def test_what_says_nothing_of_itself_is_shown_word_for_word(world: World) -> None:
    caller = await agent(world, tool("echo", "{a}"), grants='exec = ["echo"]')
    task = world.begin(caller, "tool.call", {"tool": "box.run", "args": {"a": "1"}})
    approval = await asked(world)
    shown = json.loads(world.reader.blob(approval.content_blob))["sends"]
    assert (shown["argv"], shown["network"], approval.action["grantable"]) == (["echo", "1"], [], False)
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).value == {"result": 1}


@pytest.mark.requirement("I6.tools.2", "C5")
async def test_a_program_that_said_no_may_have_done_it_and_one_yes_is_for_one_start(world: World) -> None:
    caller = await agent(world, tool("false"), grants='exec = ["false"]')
    task = world.begin(caller, "tool.call", {"tool": "box.run", "args": {}})
    await asked(world)
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).value["code"] == "tool.unknown_outcome"


@pytest.mark.requirement("I6.tools.6")
async def test_a_secret_reaches_the_program_and_neither_its_words_nor_its_answer(world: World) -> None:
    world.vault.put(KEY, VALUE)
    await world.book.state_set(KEY, "memory", ["program:python3"], "operator:1000")
    script = "import json,os;print(json.dumps([os.environ['TOKEN'], open('/proc/self/cmdline').read()]))"
    given = tool("python3", "-c", script, env={"TOKEN": f"{{secret:{KEY}}}"}, secrets=[KEY], effect="read")
    value = await call(world, given, f'exec = ["python3"]\nsecrets = ["{KEY}"]')
    assert value["result"][0] == "[secret]"
    assert "[secret]" not in value["result"][1]
    assert [used.to for used in world.payloads("secret.used")] == ["program:python3"]


@pytest.mark.requirement("K2", "I6.secrets.10")
@pytest.mark.parametrize("how", ["cut", "lines", "hex"])
async def test_what_a_program_complains_of_holds_no_part_of_its_secret(world: World, how: str) -> None:
    world.vault.put(KEY, VALUE)
    await world.book.state_set(KEY, "memory", ["program:python3"], "operator:1000")
    said = {
        # What is kept of its complaints ends in the middle of the secret.
        "cut": f"'x' * ({MAX_RESULT_BYTES} - {len(VALUE) * 3 // 4}) + value",
        "lines": "'\\n'.join(value)",
        "hex": "value.encode().hex(' ')",
    }[how]
    script = f"import os,sys;value=os.environ['TOKEN'];sys.stderr.write({said});sys.exit(3)"
    given = tool("python3", "-c", script, env={"TOKEN": f"{{secret:{KEY}}}"}, secrets=[KEY], effect="read")
    value = await call(world, given, f'exec = ["python3"]\nsecrets = ["{KEY}"]')
    assert value["code"] == "tool.failed" and "ended with 3" in value["message"]
    assert found(VALUE, "".join(value["message"].split()).encode()) == []


class Endless:
    """A sandbox whose programs go on until they are ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.begun = asyncio.Event()

    def layers(self) -> Layers:
        return Layers(each=())

    def resolve(self, program: str) -> str:
        return f"/usr/bin/{program}"

    async def run(self, program: Program, *, on_output: Any = None) -> ProgramResult:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(program.argv[0])
        raise AssertionError

    async def spawn(self, program: Program, *, stdin: int, stdout: int, stderr: int) -> Child:
        raise NotImplementedError


@pytest.mark.parametrize("how", ["stopped", "late"])
async def test_a_program_under_way_is_ended_with_its_attempt_or_its_time(world: World, how: str) -> None:
    sandbox = world.programs = Endless()
    await world.restart()
    caller = await agent(world, tool("sleep", "60", effect="read"), grants='exec = ["sleep"]')
    task = world.begin(caller, "tool.call", {"tool": "box.run", "args": {}})
    await within(sandbox.begun.wait())
    if how == "stopped":
        task.cancel()
    else:
        world.clock.advance(90_000)
        assert (await within(task)).value["code"] == "tool.timeout"
    await until(lambda: sandbox.ended == ["/usr/bin/sleep"])
