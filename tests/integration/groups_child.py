"""Run in a control group that was handed over: what the daemon does there, said on stdout as JSON lines.

``python -m tests.integration.groups_child GROUP WHAT``: joins GROUP, then does WHAT.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.sandbox import Limits, Program, SandboxError
from runloopd.cgroups import Bounds, Groups, GroupsRefused, divided
from runloopd.runtime.supervisor import AttemptOrder, GuestLimits, Runtime

RUN = "0b7c0b7c-0000-4000-8000-000000000001"
_RUN_BOUNDS = Bounds(memory=1 << 30, tasks=512, weight=100)


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def tree(root: Path) -> list[str]:
    return sorted(str(Path(found).relative_to(root)) for found, _, _ in os.walk(root) if found != str(root))


async def until_gone(root: Path, kept: list[str]) -> list[str]:
    async with asyncio.timeout(10):
        while tree(root) != kept:
            await asyncio.sleep(0.01)
    return tree(root)


async def program(groups: Groups, root: Path) -> None:
    """One that starts others which leave its session; it ends at its time, and they with it."""
    sandbox = Bubblewrap((), groups)
    task = asyncio.ensure_future(
        sandbox.run(
            Program(
                argv=(sandbox.resolve("sh"), "-c", "setsid sleep 1000 & setsid sleep 1000 & sleep 1000"),
                run=RUN,
                agent="tester",
                limits=Limits(wall_ms=3_000),
            )
        )
    )
    group = root / f"run-{RUN}" / "program-1"
    async with asyncio.timeout(20):
        while not group.is_dir() or len((group / "cgroup.procs").read_text().split()) < 6:
            await asyncio.sleep(0.01)
    inside = list(map(int, (group / "cgroup.procs").read_text().split()))
    say(tree=tree(root), inside=len(inside), alone=own() == ["supervisor"])
    result = await task
    say(killed_by=result.killed_by, alive=[pid for pid in inside if lives(pid)])
    say(tree=await until_gone(root, ["supervisor"]), cpu=groups.spent_us("tester") > 0)


async def refused(groups: Groups, root: Path) -> None:
    """A program that cannot be given its group is not run."""
    in_the_way = taken(root / f"run-{RUN}", "program")
    sandbox = Bubblewrap((), groups)
    with tempfile.TemporaryDirectory() as folder:
        try:
            await sandbox.run(Program(argv=(sandbox.resolve("touch"), f"{folder}/x"), run=RUN))
            say(ran=True)
        except SandboxError as error:
            say(ran=False, why=error.message, running=sandbox.running)
    for place in in_the_way:
        place.rmdir()


def taken(home: Path, kind: str) -> list[Path]:
    """The next few names of a run's groups; the home itself is no hindrance."""
    home.mkdir(exist_ok=True)
    names = [home / f"{kind}-{number}" for number in range(1, 9)]
    for name in names:
        name.mkdir()
    return names


async def worker(groups: Groups, root: Path) -> None:
    """A guest's worker comes into its run's group, and leaves nothing there."""
    from tests.integration.runtime.conftest import MAC_KEY, Script
    from tests.unit.runtime.guests import calling

    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(cache_dir=Path(folder), mac_key=MAC_KEY, groups=groups, max_spares=0)
        await runtime.start()
        path = Path(folder) / "x.wasm"
        path.write_bytes(calling("time.now", "{}"))
        digest = await runtime.prepare(path)
        seen: list[list[str]] = []
        group = root / f"run-{RUN}"

        async def answers(_: object) -> int:
            async with asyncio.timeout(20):
                while not any(one.read_text().split() for one in group.glob("worker-*/cgroup.procs")):
                    await asyncio.sleep(0.01)
            seen.append(tree(root))
            return 1

        order = AttemptOrder(
            run=RUN, node="n", attempt=1, component_digest=digest, source=None, entrypoint="", input={},
            limits=GuestLimits(),
        )  # fmt: skip
        result = await runtime.run_attempt(order, Script(answers))
        say(ok=result.ok, during=[name for name in seen[0] if name.startswith("run-")])
        say(tree=await until_gone(root, ["supervisor", "zygote"]))
        # One whose group cannot be made does not live on.
        in_the_way = taken(group, "worker")

        async def answers_the_dead(_: object) -> int:
            async with asyncio.timeout(20):
                while len((root / "zygote" / "cgroup.procs").read_text().split()) > 1:
                    await asyncio.sleep(0.01)
            return 1

        result = await runtime.run_attempt(order, Script(answers_the_dead))
        say(ok=result.ok, code=result.error and result.error.code)
        for place in in_the_way:
            place.rmdir()
        await runtime.close()


def lives(pid: int) -> bool:
    """Whether it is there, and not only its number until somebody hears of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def own() -> list[str]:
    name = Path("/proc/self/cgroup").read_text().strip().rpartition("\n")[2]
    return [name.rpartition("/")[2]]


async def main(root: Path, what: str) -> None:
    (root / "cgroup.procs").write_text("0")
    try:
        groups = divided(run=_RUN_BOUNDS, required=what == "required")
    except GroupsRefused as error:
        say(refused=error.message)
        return
    say(told=groups.told())
    works = {"program": program, "refused": refused, "worker": worker}
    if what in works:
        await works[what](groups, root)
    await groups.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
