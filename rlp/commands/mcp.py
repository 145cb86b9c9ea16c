"""``rlp mcp``: foreign MCP servers. What widens goes through a person, the rest happens at once.

Whatever a server says is foreign text: it is shown escaped, behind words of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlp import install as installing
from rlp.session import Session
from runloop.errors import UsageError
from runloop.escape import visible
from runloop.exits import Exit

__all__ = ["add", "approve", "list_", "remove", "show", "suspend", "tools"]

START_S = 90.0
"""Longest a server may take to start and tell what it offers."""
_BY_NAME = "secret:"
_MAX_CHANGES = 200


def add(
    session: Session,
    *,
    name: str,
    argv: tuple[str, ...],
    url: str | None,
    net: tuple[str, ...],
    ro: tuple[str, ...],
    rw: tuple[str, ...],
    env: tuple[str, ...],
    secret: str | None,
    legacy: bool,
) -> Exit:
    """Ask for a server to be let in."""
    plain, secrets = _environment(env)
    if secret is not None:
        secrets["bearer"] = secret
        if url is None:
            raise UsageError(
                "--secret is the token of a server in the web",
                hint=f"give a program's with --env NAME=secret:{secret}",
                code="cli.argument",
            )
    spec: dict[str, Any] = {
        "argv": [_whole(argv[0]), *argv[1:]] if argv else [],
        "url": url,
        "env": plain,
        "secrets": secrets,
        "net": list(net),
        "ro": [str(Path(place).expanduser().absolute()) for place in ro],
        "rw": [str(Path(place).expanduser().absolute()) for place in rw],
        "legacy": legacy,
    }
    return _follow(session, session.ask("mcp.add", server=name, spec=spec), f"adding the MCP server {name}")


def approve(session: Session, *, what: str, read: bool, write: bool) -> Exit:
    """Ask for tools to be allowed as they are defined now."""
    if read and write:
        raise UsageError("a tool either reads or writes", hint="leave one out", code="cli.argument")
    server, _, tool = what.partition("/")
    effect = "read" if read else "write" if write else "send"
    asked = session.ask("mcp.approve", START_S, server=server, tools=[tool] if tool else [], effect=effect)
    return _follow(session, asked, f"approving tools of the MCP server {server}")


def list_(session: Session) -> Exit:
    """One row per server."""
    session.console.rows(
        session.ask("mcp.list")["servers"],
        ("server", "transport", "state", "tools", "approved", "suspended", "runs"),
        empty="no MCP servers; 'rlp mcp add NAME -- PROGRAM ARG…' adds one",
    )
    return Exit.OK


def tools(session: Session, *, name: str) -> Exit:
    """Look at the server now and list what it offers."""
    found = session.ask("mcp.show", START_S, server=name, look=True)
    session.console.rows(
        [{**tool, "description": tool["description"][:200]} for tool in found["tools"]],
        ("name", "state", "effect", "description"),
        empty=f"{name} offers no tools",
    )
    _refused(session, found)
    if not session.json and any(tool["state"] == "seen" for tool in found["tools"]):
        session.console.say(f"what is 'seen' cannot be called before: rlp mcp approve {name}")
    return Exit.OK


def show(session: Session, *, name: str) -> Exit:
    """What it runs, how it is, and what changed."""
    found = session.ask("mcp.show", server=name)
    console = session.console
    if session.json:
        console.json(found)
        return Exit.OK
    for line in found["shown"].splitlines():
        console.data(visible(line))
    console.data(f"state         {found['state']}" + (f": {visible(found['why'])}" if found["why"] else ""))
    if found["protocol"]:
        console.data(
            f"speaks        MCP {visible(found['protocol'])}, calls itself {visible(found['identity'])}"
        )
    for tool in found["tools"]:
        effect = f", taken for {tool['effect']}" if tool["effect"] else ""
        why = f": {visible(tool['why'])}" if tool["why"] else ""
        console.data(f"tool          {visible(tool['name'])}  {tool['state']}{effect}{why}")
        for line in tool.get("changes", [])[:_MAX_CHANGES]:
            console.data(f"  | {visible(line)}")
    _refused(session, found)
    for line in found["stderr"].splitlines()[-20:]:
        console.data(f"  stderr | {visible(line)}")
    return Exit.OK


def suspend(session: Session, *, what: str) -> Exit:
    """Let tools not be called until they are approved again."""
    server, _, tool = what.partition("/")
    done = session.ask("mcp.suspend", server=server, tools=[tool] if tool else [])
    if session.json:
        session.console.json(done)
    else:
        session.console.say(f"{len(done['tools'])} tools of {server} are suspended")
    return Exit.OK


def remove(session: Session, *, name: str, reason: str) -> Exit:
    """End a server and forget every approval of its tools."""
    done = session.ask("mcp.remove", server=name, reason=reason)
    if session.json:
        session.console.json(done)
    else:
        session.console.say(f"the MCP server {name} is gone, and every approval of its tools")
    return Exit.OK


def _environment(env: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    plain: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for text in env:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                "--env takes NAME=VALUE or NAME=secret:runloop/mcp/NAME",
                hint="this one has no '='",
                code="cli.argument",
            )
        if value.startswith(_BY_NAME):
            secrets[name] = value.removeprefix(_BY_NAME)
        else:
            plain[name] = value
    return plain, secrets


def _whole(program: str) -> str:
    """A program given by a path is meant from here; one given by name is looked up by the daemon."""
    return str(Path(program).expanduser().absolute()) if "/" in program else program


def _follow(session: Session, asked: dict[str, Any], words: str) -> Exit:
    if asked["state"] == "waiting":
        return installing.follow(session, asked, words)
    if session.json:
        session.console.json(asked)
    else:
        session.console.say("it is so already; nothing to do")
    return Exit.OK


def _refused(session: Session, found: dict[str, Any]) -> None:
    if not session.json:
        for line in found["refused"]:
            session.console.note(f"rlp: not usable: {visible(line)}", "yellow")
