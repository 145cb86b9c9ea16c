"""The family ``git`` as a table: what each tool takes and gives, and what it must be granted.

Knows: the rows. Does not know: git (``tools.git``).
"""

from __future__ import annotations

from typing import Any

from runloop.caps.destination import parse_destination
from runloopd.broker.toolbox import ToolContext
from runloopd.broker.tools.family import Family, HostTool, array, flag, number, text
from runloopd.broker.tools.file_tools import granted
from runloopd.broker.tools.git import MAX_RECORDS, TOKEN, Git
from runloopd.broker.tools.sandbox import ProgramSandbox

__all__ = ["git_tools"]


def _reads(args: dict[str, Any], context: ToolContext) -> None:
    granted(context, "fs_ro", args["repo"])


def _writes(args: dict[str, Any], context: ToolContext) -> None:
    granted(context, "fs_rw", args["repo"])


def _pushes(args: dict[str, Any], context: ToolContext) -> None:
    _reads(args, context)
    if context.net is not None:
        context.net.require("POST", parse_destination(args["url"]))


def _goes(args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    return {
        "folders": [{"path": args["repo"], "writable": False}],
        "network": [parse_destination(args["url"]).authority],
    }


def _rows(properties: dict[str, Any]) -> dict[str, Any]:
    return array(
        "One after the other.",
        {"type": "object", "properties": properties, "required": list(properties)},
        1_000,
    )


def git_tools(sandbox: ProgramSandbox, authorities: str | None = None) -> Family:
    """The family ``git``; ``authorities``: as of :class:`Git`."""
    code = Git(sandbox, authorities)
    repo = text("Absolute path of the work tree: the folder that holds .git.", 4_095, least=1)
    revision = text("A branch, tag or commit, or two with '..' between.", 400, default="HEAD")
    paths = array("Only these, relative to the work tree.", text("A path.", 4_095, least=1), 100, default=[])
    string, integer = {"type": "string"}, {"type": "integer"}
    cut = {"truncated": {"type": "boolean"}}
    told = {"text": string, **cut}

    def row(name: str, about: str, takes: dict[str, Any], gives: dict[str, Any], run: Any) -> HostTool:
        return HostTool(
            name=f"git.{name}",
            about=about,
            takes={"repo": repo, **takes},
            gives=gives,
            effect="read",
            run=run,
            permit=_reads,
            resource=("repo",),
        )

    return Family(
        (
            row(
                "status",
                "Tell the branch and which files differ from it.",
                {},
                {
                    "branch": string,
                    "clean": {"type": "boolean"},
                    "files": _rows({"state": string, "path": string}),
                    **cut,
                },
                code.status,
            ),
            row(
                "log",
                "List commits, newest first.",
                {"revision": revision, "paths": paths, "limit": number("Most.", 1, MAX_RECORDS, default=20)},
                {
                    "commits": _rows({"commit": string, "author": string, "date": string, "subject": string}),
                    **cut,
                },
                code.log,
            ),
            row(
                "diff",
                "Show what differs: the work tree against the index, the index, or two revisions.",
                {
                    "revision": text("A revision, or two with '..' between.", 400, default=""),
                    "staged": flag("What is about to be committed.", default=False),
                    "paths": paths,
                },
                told,
                code.diff,
            ),
            row(
                "show",
                "Show a commit: its message and what it changed.",
                {"revision": revision, "paths": paths},
                told,
                code.show,
            ),
            row(
                "blame",
                "Tell who last changed each line of a file.",
                {
                    "path": text("Relative to the work tree.", 4_095, least=1),
                    "revision": revision,
                    "first": number("First line.", 1, 1_000_000, default=1),
                    "last": number("Last line.", 1, 1_000_000, default=200),
                },
                {
                    "lines": _rows(
                        {"line": integer, "commit": string, "author": string, "time": string, "text": string}
                    ),
                    **cut,
                },
                code.blame,
            ),
            HostTool(
                name="git.commit",
                about="Commit what is staged, and these paths. No hook of the repository is run.",
                takes={
                    "repo": repo,
                    "message": text("The message.", 20_000, least=1),
                    "paths": paths,
                    "author": text("Name <address>.", 200, default="Runloop agent <agent@localhost>"),
                },
                gives={"commit": string},
                effect="write",
                run=code.commit,
                permit=_writes,
                outcome=code.committed,
                resource=("repo",),
            ),
            HostTool(
                name="git.push",
                about="Push a branch to an https URL. A person is asked; the host must be granted.",
                takes={
                    "repo": repo,
                    "url": text("https://host/path", 1_000, least=1),
                    "branch": text("The branch there.", 200, least=1),
                    "commit": text("What it becomes: all 40 digits.", 64, least=40),
                },
                gives=told,
                effect="send",
                run=code.push,
                permit=_pushes,
                touches=_goes,
                confirm=True,
                resource=("repo", "url", "branch", "commit"),
                secrets=(TOKEN,),
            ),
        )
    )
