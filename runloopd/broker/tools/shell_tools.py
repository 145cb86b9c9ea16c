"""``shell.run``: one line of shell in the sandbox, on the granted folders, after a person read it.

Knows: what the line sees. Does not know: how it is shut in (``tools.bubblewrap``), how a person is asked
(``tool_ops``). The line is confirmed each time and never for good: its name does not say what it does.
"""

from __future__ import annotations

from typing import Any

from runloopd.broker.toolbox import ToolContext, ToolError
from runloopd.broker.tools.family import Family, HostTool, number, policy_of, text
from runloopd.broker.tools.file_tools import granted
from runloopd.broker.tools.folders import mounts_of, shown_folders
from runloopd.broker.tools.sandbox import Limits, Program, ProgramResult, ProgramSandbox

__all__ = ["MAX_OUTPUT", "gave", "shell_tools", "shown"]

MAX_OUTPUT = 256 * 1024
MAX_WALL_MS = 80_000
"""Below the gate's own patience with a tool."""


def shell_tools(sandbox: ProgramSandbox) -> Family:
    """The family ``shell``."""

    async def run(args: dict[str, Any], context: ToolContext) -> Any:
        shell = sandbox.resolve("sh")
        folders = mounts_of(policy_of(context))
        wall_ms = args.get("timeout_ms", 30_000)
        program = Program(
            argv=(shell, "-c", args["line"]),
            stdin=args.get("stdin", "").encode(),
            cwd=args.get("cwd") or "/tmp",  # noqa: S108 - inside, where it is its own
            mounts=folders,
            limits=Limits(wall_ms=wall_ms, output=MAX_OUTPUT),
            run=context.run,
            agent=context.agent,
        )
        result = await sandbox.run(program)
        return gave(result, "shell.run", changes=any(folder.writable for folder in folders))

    def permit(args: dict[str, Any], context: ToolContext) -> None:
        if args.get("cwd"):
            granted(context, "fs_ro", args["cwd"])

    def touches(args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        return {"folders": shown_folders(mounts_of(policy_of(context))), "network": []}

    return Family(
        (
            HostTool(
                name="shell.run",
                about="Run a line of shell on the granted folders, without network. A person reads it first.",
                takes={
                    "line": text("The line, for /bin/sh.", 8_192, least=1),
                    "cwd": text("A granted folder to begin in.", 4_095, default=""),
                    "stdin": text("What the line reads.", 65_536, default=""),
                    "timeout_ms": number("Longest time.", 100, MAX_WALL_MS, default=30_000),
                },
                gives=GIVES,
                effect="write",
                run=run,
                permit=permit,
                touches=touches,
                confirm=True,
                grantable=False,
            ),
        )
    )


GIVES: dict[str, Any] = {
    "exit": {"type": "integer", "description": "0 is success; 128 + n: ended by signal n."},
    "stdout": {"type": "string"},
    "stderr": {"type": "string"},
    "truncated": {"type": "boolean"},
}


def gave(result: ProgramResult, name: str, *, changes: bool) -> dict[str, Any]:
    """What a program came to. Raises :class:`ToolError` for one that was ended from outside.

    ``changes``: it could write somewhere that outlives it, and nobody knows how far it came.
    """
    if result.killed_by is not None:
        code = "tool.timeout" if result.killed_by == "deadline" else "tool.failed"
        why = {
            "deadline": "it did not end in time",
            "cpu": "it used too much processor time",
            "memory": "it used too much memory",
            "processes": "it started too many processes",
            "cancelled": "it was stopped",
        }[result.killed_by]
        raise ToolError(f"{name}: {why}", code=code, outcome="unknown" if changes else "absent")
    return shown(result)


def shown(result: ProgramResult) -> dict[str, Any]:
    """As a guest sees it: text, with what is none replaced."""
    return {
        "exit": result.exit,
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "truncated": result.truncated,
    }
