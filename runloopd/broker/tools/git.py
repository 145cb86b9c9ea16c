"""``git.*``: a repository looked at, committed to and pushed from, without anything of it being run.

Knows: the git commands behind each tool, and what of a repository must not count. Does not know: how a
program is shut in (``tools.bubblewrap``), who is asked (``tool_ops``).

A repository is foreign: whoever made it wrote its ``.git/config``, its hooks and its ``.gitattributes``. So
git runs in a sandbox that has that one folder, and in which nothing but git itself can be executed: whatever
hook, filter, monitor, pager, alias or helper is named there, the kernel does not start it. The settings below
say the same to git, so that it does not try. A push starts from settings of ours alone, because those of a
repository may say where a URL leads.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from runloop.caps.destination import parse_destination
from runloop.caps.grants import NetRule
from runloop.caps.policy import Policy
from runloopd.broker.ports import Outcome
from runloopd.broker.providers.walk import names_of
from runloopd.broker.toolbox import ToolContext, ToolError
from runloopd.broker.tools.egress import GrantedHosts, OnlyTo
from runloopd.broker.tools.family import policy_of
from runloopd.broker.tools.file_tools import granted
from runloopd.broker.tools.sandbox import Egress, Limits, Mount, Program, ProgramResult, ProgramSandbox

__all__ = ["MAX_RECORDS", "TOKEN", "Git"]

MAX_OUTPUT = 256 * 1024
MAX_RECORDS = 200
_WALL_MS = 30_000
_PUSH_MS = 60_000
_REVISION = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_./@^~{}-]{0,199}\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_URL = re.compile(r"https://([A-Za-z0-9.-]+)(:[0-9]+)?/[A-Za-z0-9._~/-]+\Z")

_SETTINGS = (
    # From the command line they come last, and hold whatever a repository says.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.sshCommand", "false"),
    ("core.askPass", "false"),
    ("core.alternateRefsCommand", "false"),
    ("diff.external", ""),
    ("credential.helper", ""),
    ("commit.gpgSign", "false"),
    ("log.showSignature", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
    ("protocol.allow", "never"),
    ("safe.directory", "*"),
    ("color.ui", "false"),
)
_PUSH_CONFIG = """[core]
\trepositoryformatversion = 0
\tbare = true
[http]
\tfollowRedirects = false
\tsslVerify = true
[push]
\trecurseSubmodules = no
"""
_PUSH = "/push"
"""Where a push has a repository of its own: the objects are the other's, the settings are these."""
_EXECUTABLE = ("/usr/lib/git-core", "/usr/libexec/git-core")
"""Where systems keep the programs that git is made of; what is not there is not asked for."""
_SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
TOKEN = "runloop/git/token"  # noqa: S105 - the name of a secret
_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_ASKPASS": "false",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_CEILING_DIRECTORIES": "/",
}
_FIELD, _RECORD = "\x1f", "\x1e"


class Git:
    """The code behind the rows."""

    def __init__(self, sandbox: ProgramSandbox, authorities: str | None = None) -> None:
        """``authorities``: a PEM file of those that servers are judged by beside the system's."""
        self._sandbox = sandbox
        self._authorities = authorities

    # --- looking ----------------------------------------------------------------------------------

    async def status(self, args: dict[str, Any], context: ToolContext) -> Any:
        words = ("status", "--porcelain=v1", "-z", "--branch", "--untracked-files=normal", "--no-renames")
        said, cut = await self._look(args, context, *words)
        rows = [row for row in said.split("\0") if row]
        branch = rows[0].removeprefix("## ") if rows and rows[0].startswith("## ") else ""
        files = [{"state": row[:2], "path": row[3:]} for row in rows if not row.startswith("## ")]
        return {
            "branch": branch,
            "clean": not files and not cut,
            "files": files[:1_000],
            "truncated": cut or len(files) > 1_000,
        }

    async def log(self, args: dict[str, Any], context: ToolContext) -> Any:
        most = args.get("limit", 20)
        shape = _FIELD.join(("%H", "%an", "%aI", "%s")) + _RECORD
        words = ["log", f"--max-count={most}", f"--format={shape}", *_diffless(), _revision(args)]
        said, cut = await self._look(args, context, *words, "--", *_paths(args))
        commits = []
        for record in said.split(_RECORD):
            fields = record.lstrip("\n").split(_FIELD)
            if len(fields) == 4:
                commit, author, date, subject = fields
                commits.append({"commit": commit, "author": author, "date": date, "subject": subject})
        return {"commits": commits, "truncated": cut or len(commits) == most}

    async def diff(self, args: dict[str, Any], context: ToolContext) -> Any:
        words = ["diff", *_plain_diff(), *(("--cached",) if args.get("staged", False) else ())]
        if args.get("revision"):
            words.append(_revision(args))
        return _text(*await self._look(args, context, *words, "--", *_paths(args)))

    async def show(self, args: dict[str, Any], context: ToolContext) -> Any:
        words = ("show", *_plain_diff(), "--format=fuller", _revision(args), "--", *_paths(args))
        return _text(*await self._look(args, context, *words))

    async def blame(self, args: dict[str, Any], context: ToolContext) -> Any:
        first, last = args.get("first", 1), args.get("last", 200)
        if last < first:
            raise ToolError("git.blame: last comes before first", code="tool.args")
        words = (
            "blame",
            "--no-textconv",
            "--line-porcelain",
            f"-L{first},{last}",
            _revision(args),
            "--",
            _path(args["path"]),
        )
        said, cut = await self._look(args, context, *words)
        return {"lines": list(_blamed(said))[:1_000], "truncated": cut}

    # --- changing ---------------------------------------------------------------------------------

    async def commit(self, args: dict[str, Any], context: ToolContext) -> Any:
        mount = _writable(args, context)
        paths = _paths(args)
        if paths:
            await self._run(context, mount, ("add", "--", *paths), _WALL_MS)
        author = args.get("author", "Runloop agent <agent@localhost>")
        name, _, mail = author.rstrip(">").rpartition(" <")
        people = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name or "Runloop agent"), ("EMAIL", mail or "agent@localhost"))
        }
        # The key of the call stands in the commit: whether it was made can be told afterwards.
        message = f"{args['message'].rstrip()}\n\nRunloop-Call: {context.key[:32]}\n"
        words = ("commit", "--no-verify", "--no-gpg-sign", "--cleanup=verbatim", "-F", "-", "--quiet")
        await self._run(context, mount, words, _WALL_MS, stdin=message.encode(), env=people)
        made = await self._run(context, mount, ("rev-parse", "HEAD"), _WALL_MS)
        return {"commit": made.stdout.decode().strip()}

    async def committed(self, context: ToolContext) -> Any:
        mount = _readable(context.args, context)
        found = await self._run(context, mount, ("log", "-n50", "--format=%B", *_diffless()), _WALL_MS)
        return "done" if f"Runloop-Call: {context.key[:32]}" in found.stdout.decode() else "unknown"

    async def push(self, args: dict[str, Any], context: ToolContext) -> Any:
        mount = _readable(args, context)
        branch, commit, url = args["branch"], args["commit"], args["url"]
        if not _NAME.match(branch) or ".." in branch or not _COMMIT.match(commit) or not _URL.match(url):
            raise ToolError(
                "git.push: the commit is written out, the branch is a plain name, the URL is https://host/path",
                code="tool.args",
            )
        place = parse_destination(url)
        config = _PUSH_CONFIG
        trusted = await asyncio.to_thread(_trusted, self._authorities)
        if trusted:
            config += f"[http]\n\tsslCAInfo = {_PUSH}/authorities.pem\n"
        if TOKEN in context.secrets:
            word = base64.b64encode(b"x-access-token:" + context.secrets[TOKEN].reveal().encode()).decode()
            config += f'[http "{url}"]\n\textraHeader = "Authorization: Basic {word}"\n'
        made = {
            "config": config,
            "HEAD": "ref: refs/heads/none\n",
            "objects/info/alternates": f"{mount.path}/.git/objects\n",
            "refs/heads/README": "",
            **({"authorities.pem": trusted} if trusted else {}),
        }
        program = self._program(
            (
                *("-c", "protocol.https.allow=always", "push", "--no-verify", "--porcelain", "--no-signed"),
                *(url, f"{commit}:refs/heads/{branch}"),
            ),
            mounts=(
                mount,
                *(Mount(path=f"{_PUSH}/{name}", data=said.encode()) for name, said in made.items()),
            ),
            env={"GIT_DIR": _PUSH},
            cwd="/tmp",  # noqa: S108 - inside, where it is its own
            wall_ms=_PUSH_MS,
            # It goes where its token goes: to the place a person saw, and to no other that is granted.
            egress=OnlyTo(place, GrantedHosts(_rules(policy_of(context)), noted=context.reached)),
        )
        # A server that was asked may have taken it, whatever came back.
        done = await self._carried(context, program, outcome="unknown")
        return _text(done.stdout.decode(errors="replace"), done.truncated)

    # --- git --------------------------------------------------------------------------------------

    async def _look(self, args: dict[str, Any], context: ToolContext, *words: str) -> tuple[str, bool]:
        found = await self._run(context, _readable(args, context), words, _WALL_MS)
        return found.stdout.decode(errors="replace"), found.truncated

    async def _run(
        self,
        context: ToolContext,
        mount: Mount,
        words: tuple[str, ...],
        wall_ms: int,
        *,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
    ) -> ProgramResult:
        where = {"GIT_DIR": f"{mount.path}/.git", "GIT_WORK_TREE": mount.path}
        program = self._program(
            words, mounts=(mount,), env={**where, **(env or {})}, cwd=mount.path, wall_ms=wall_ms, stdin=stdin
        )
        return await self._carried(context, program, outcome="unknown" if mount.writable else "absent")

    def _program(
        self,
        words: tuple[str, ...],
        *,
        mounts: tuple[Mount, ...],
        env: dict[str, str],
        cwd: str,
        wall_ms: int,
        stdin: bytes = b"",
        egress: Egress | None = None,
    ) -> Program:
        git = self._sandbox.resolve("git")
        settings = [word for name, value in _SETTINGS for word in ("-c", f"{name}={value}")]
        return Program(
            argv=(git, "--no-pager", *settings, *words),
            stdin=stdin,
            env={**_ENV, **env},
            cwd=cwd,
            mounts=mounts,
            egress=egress,
            executables=(git, *_EXECUTABLE),
            limits=Limits(wall_ms=wall_ms, cpu_s=wall_ms // 1_000, output=MAX_OUTPUT),
        )

    async def _carried(self, context: ToolContext, program: Program, *, outcome: Outcome) -> ProgramResult:
        result = await self._sandbox.run(replace(program, run=context.run, agent=context.agent))
        if result.killed_by is not None:
            code = "tool.timeout" if result.killed_by == "deadline" else "tool.failed"
            raise ToolError(f"git did not end: {result.killed_by}", code=code, outcome=outcome)
        if result.exit != 0:
            said = _cut(result.stderr.decode(errors="replace").strip())
            # A server that was asked may have taken it, whatever git makes of its answer.
            began: Outcome = outcome if program.egress is not None else "absent"
            raise ToolError(f"git said no: {said or f'exit {result.exit}'}", outcome=began)
        return result


def _trusted(authorities: str | None) -> str:
    """Every certificate that servers are judged by, where there are more than the system's; else nothing."""
    if authorities is None:
        return ""
    try:
        own = Path(authorities).read_text(encoding="utf-8")
        system = _SYSTEM_AUTHORITIES.read_text(encoding="utf-8") if _SYSTEM_AUTHORITIES.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(
            f"git.push: the certificates that servers are judged by cannot be read: {error}",
            hint="look at security.web_authorities",
            code="tool.unavailable",
        ) from error
    return f"{system}\n{own}"


def _cut(text: str, most: int = 1_000) -> str:
    """The beginning of a text, never in the middle of a word: half a secret is one that nobody finds."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0]


# --- arguments ------------------------------------------------------------------------------------


def _readable(args: dict[str, Any], context: ToolContext) -> Mount:
    granted(context, "fs_ro", args["repo"])
    return Mount(path=args["repo"])


def _writable(args: dict[str, Any], context: ToolContext) -> Mount:
    granted(context, "fs_rw", args["repo"])
    return Mount(path=args["repo"], writable=True)


def _revision(args: dict[str, Any]) -> str:
    revision: str = args.get("revision") or "HEAD"
    if not _REVISION.match(revision) or ".." in revision.replace("...", ".."):
        left, dots, right = revision.partition("..")
        if not (dots and _REVISION.match(left) and _REVISION.match(right.lstrip("."))):
            raise ToolError(f"{revision[:80]!r} is not a revision", code="tool.args")
    return revision


def _paths(args: dict[str, Any]) -> list[str]:
    return [_path(path) for path in args.get("paths", [])]


def _path(path: str) -> str:
    names_of("/" + path)
    return path


def _plain_diff() -> tuple[str, ...]:
    """No program of the repository's choice looks at its files."""
    return ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all", "--no-renames")


def _diffless() -> tuple[str, ...]:
    return ("--no-ext-diff", "--no-textconv", "--no-color", "--no-patch", "--no-mailmap")


def _rules(policy: Policy) -> Any:
    value = policy.value("net")
    return value if isinstance(value, bool) else tuple(rule for rule in value if isinstance(rule, NetRule))


def _blamed(said: str) -> Any:
    commit = author = date = ""
    number_ = 0
    for line in said.split("\n"):
        if line.startswith("\t"):
            yield {"line": number_, "commit": commit, "author": author, "time": date, "text": line[1:400]}
        elif re.match(r"[0-9a-f]{40} [0-9]+ [0-9]+", line):
            commit, number_ = line[:40], int(line.split(" ")[2])
        elif line.startswith("author "):
            author = line.removeprefix("author ")
        elif line.startswith("author-time "):
            date = line.removeprefix("author-time ")


def _text(said: str, cut: bool) -> dict[str, Any]:
    return {"text": said, "truncated": cut}
