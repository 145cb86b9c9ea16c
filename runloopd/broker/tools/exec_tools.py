"""``exec.run`` and ``exec.ask``: one program in the sandbox, by its words, on the granted folders.

Knows: which of the two a program may be run by. Does not know: how it is shut in (``tools.bubblewrap``), how
a person is asked (``tool_ops``).

``exec.run`` asks nobody, and runs only what the policy names itself: that name is the operator's word. A
program that runs others (a shell, an interpreter, ``env``) is never run so, whatever is named: its name says
nothing about what will happen. ``exec.ask`` runs whatever ``exec`` covers, after a person read every word.
"""

from __future__ import annotations

from typing import Any

from runloop.caps.grants import NetRule
from runloop.errors import RefusedError
from runloopd.broker.ports import Outcome
from runloopd.broker.toolbox import ToolContext, ToolError
from runloopd.broker.tools.egress import GrantedHosts, reachable
from runloopd.broker.tools.family import Family, HostTool, array, flag, number, policy_of, text
from runloopd.broker.tools.file_tools import granted
from runloopd.broker.tools.folders import mounts_of, shown_folders
from runloopd.broker.tools.programs import is_interpreter, named, permitted
from runloopd.broker.tools.sandbox import Limits, Program, ProgramSandbox
from runloopd.broker.tools.shell_tools import GIVES, MAX_OUTPUT, MAX_WALL_MS, gave

__all__ = ["exec_tools"]


class _Programs:
    """The code behind the rows."""

    def __init__(self, sandbox: ProgramSandbox) -> None:
        self._sandbox = sandbox

    def unasked(self, args: dict[str, Any], context: ToolContext) -> None:
        """Raise unless the program may be run without asking anybody."""
        path = self.covered(args, context)
        why = None
        if not named(policy_of(context), path, self._sandbox):
            why = "exec is granted for any program, and names not this one"
        elif is_interpreter(path, self._sandbox):
            why = f"{path} runs other programs, so that its name does not say what will happen"
        if why is not None:
            raise RefusedError(
                f"exec.run: {why}", hint="call exec.ask: a person reads its words first", code="tool.args"
            )

    def covered(self, args: dict[str, Any], context: ToolContext) -> str:
        """The program's path. Raises :class:`CapabilityError`."""
        if args.get("cwd"):
            granted(context, "fs_ro", args["cwd"])
        return permitted(policy_of(context), context.agent, args["argv"][0], self._sandbox)

    def touches(self, args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """The folders and the hosts, which its words do not say."""
        return {
            "folders": shown_folders(mounts_of(policy_of(context))),
            "network": reachable(_rules(context)) if args.get("net", False) else [],
        }

    async def run(self, args: dict[str, Any], context: ToolContext) -> Any:
        return await self._run("exec.run", args, context)

    async def ask(self, args: dict[str, Any], context: ToolContext) -> Any:
        return await self._run("exec.ask", args, context)

    async def outcome(self, context: ToolContext) -> Outcome:
        """What wrote nowhere and reached nobody has changed nothing, however it ended."""
        changes = any(folder.writable for folder in mounts_of(policy_of(context)))
        return "unknown" if changes or context.args.get("net", False) else "absent"

    async def _run(self, name: str, args: dict[str, Any], context: ToolContext) -> Any:
        path = self.covered(args, context)
        grants = policy_of(context)
        folders = mounts_of(grants)
        egress = None
        if args.get("net", False):
            rules = _rules(context)
            if not reachable(rules):
                raise ToolError(f"{name}: no host is granted to reach", code="tool.args")
            egress = GrantedHosts(rules, noted=context.reached)
        program = Program(
            argv=(path, *args["argv"][1:]),
            stdin=args.get("stdin", "").encode(),
            cwd=args.get("cwd") or "/tmp",  # noqa: S108 - inside, where it is its own
            mounts=folders,
            egress=egress,
            limits=Limits(wall_ms=args.get("timeout_ms", 30_000), output=MAX_OUTPUT),
            run=context.run,
            agent=context.agent,
        )
        result = await self._sandbox.run(program)
        return gave(result, name, changes=egress is not None or any(folder.writable for folder in folders))


def _rules(context: ToolContext) -> bool | tuple[NetRule, ...]:
    rules = policy_of(context).value("net")
    if isinstance(rules, bool):
        return rules
    return tuple(rule for rule in rules or () if isinstance(rule, NetRule))


def exec_tools(sandbox: ProgramSandbox) -> Family:
    """The family ``exec``."""
    code = _Programs(sandbox)

    def covers(args: dict[str, Any], context: ToolContext) -> None:
        code.covered(args, context)

    takes = {
        "argv": array(
            "The program, then its arguments: no shell reads them.",
            text("A word.", 65_536),
            1_000,
            minItems=1,
        ),
        "stdin": text("What it reads.", 65_536, default=""),
        "cwd": text("A granted folder to begin in.", 4_095, default=""),
        "timeout_ms": number("Longest time.", 100, MAX_WALL_MS, default=30_000),
    }
    return Family(
        (
            HostTool(
                name="exec.run",
                about="Run a program that the policy names, on the granted folders, without network.",
                takes=takes,
                gives=GIVES,
                effect="write",
                run=code.run,
                permit=code.unasked,
                outcome=code.outcome,
                grantable=False,
            ),
            HostTool(
                name="exec.ask",
                about="Run any program that 'exec' covers, shells too, once a person read its words.",
                takes={**takes, "net": flag("Whether it reaches the hosts that are granted.", default=False)},
                gives=GIVES,
                effect="send",
                run=code.ask,
                permit=covers,
                touches=code.touches,
                outcome=code.outcome,
                confirm=True,
                grantable=False,
            ),
        )
    )
