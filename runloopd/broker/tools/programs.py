"""Which program a call names, and whether the capability ``exec`` covers it.

Knows: how a name becomes one program, what an entry of ``exec`` stands for, which programs run others. Does
not know: how a program is run (``tools.bubblewrap``), who is asked (``tool_ops``).

An entry names one program, not what it may do: the sandbox bounds that. A program that runs others
(:data:`INTERPRETERS`) on the list lets an agent run whatever the sandbox holds, so its name is no answer to
"what will happen": a person sees each call's very words.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

from runloop.caps.policy import Policy, Verdict
from runloopd.broker.asks import CapabilityError
from runloopd.broker.http_ops import how_to_obtain
from runloopd.broker.toolbox import ToolError

__all__ = ["INTERPRETERS", "Resolver", "is_interpreter", "named", "permitted"]

INTERPRETERS = frozenset(
    """
    sh ash bash dash zsh ksh mksh fish csh tcsh rc es busybox toybox
    env xargs find parallel nice ionice nohup setsid stdbuf timeout time chrt taskset watch script flock
    sudo doas su runuser setpriv unshare nsenter chroot bwrap firejail systemd-run start-stop-daemon
    python pypy perl ruby node nodejs deno bun php lua luajit tclsh wish expect guile gawk mawk nawk awk
    sed ed ex vi vim view nvim emacs nano less more man pager java jshell scala kotlin groovy erl elixir
    make cmake ninja meson cargo go npm npx yarn pnpm pip pipx uv uvx gem bundle rake gradle mvn tox nox
    gdb lldb strace ltrace valgrind perf ssh scp rsync sftp git hg svn tar zip ld.so ld-linux sqlite3
    gcc cc g++ c++ clang tcc Rscript julia octave ghc runghc ocaml swift dotnet mono pwsh
    """.split()  # noqa: SIM905 - read by people
)
"""Programs that run what their arguments, their input or a file beside them says. Not complete, and need not
be: it decides who is asked, never what a program can reach."""

_VERSIONED = re.compile(r"[-.]?[0-9][0-9.]*\Z")


class Resolver(Protocol):
    """Finds programs (a sandbox does)."""

    def resolve(self, program: str) -> str:
        """Its absolute path. Raises :class:`ToolError` (``tool.unavailable``)."""
        ...

    def stands_for(self, path: str) -> str:
        """The file that such a path leads to, links followed."""
        ...


def permitted(grants: Policy, agent: str, program: str, sandbox: Resolver) -> str:
    """The absolute path of a program that ``exec`` covers: what is checked is what is run.

    Raises :class:`CapabilityError`, and only for a covered one :class:`ToolError`: whether a program exists
    is not told to who may not run it.
    """
    value = grants.value("exec")
    if value is True:
        return sandbox.resolve(program)
    path = _path(sandbox, program)
    if path is not None and path in _covered(value or (), sandbox):
        return path
    if path is None and program in (value or ()):
        return sandbox.resolve(program)
    raise CapabilityError(_denied(grants, agent, program))


def named(grants: Policy, path: str, sandbox: Resolver) -> bool:
    """Whether the policy names this very program, and not just any."""
    value = grants.value("exec")
    return isinstance(value, tuple) and path in _covered(value, sandbox)


def is_interpreter(program: str, sandbox: Resolver | None) -> bool:
    """Whether a program runs others: by the name it is called by, or that of the file it stands for.

    A bare name is looked for where the sandbox looks, and nowhere else: never in a folder that happens to be
    the daemon's. One that is not found stands for nothing, and is not run either. ``sandbox`` None: there is
    none, and no program is run.
    """
    names = {PurePosixPath(program).name}
    place = None if sandbox is None else _path(sandbox, program)
    if sandbox is not None and place is not None:
        names.add(PurePosixPath(sandbox.stands_for(place)).name)
    return any(name in INTERPRETERS or _VERSIONED.sub("", name) in INTERPRETERS for name in names)


def _covered(entries: object, sandbox: Resolver) -> set[str]:
    assert isinstance(entries, tuple)
    found = (_path(sandbox, str(entry)) for entry in entries)
    return {path for path in found if path is not None}


def _path(sandbox: Resolver, program: str) -> str | None:
    try:
        return sandbox.resolve(program)
    except ToolError:
        return None


def _denied(grants: Policy, agent: str, program: str) -> Verdict:
    verdict = grants.allows("exec", program or "nothing", agent=agent)
    value = grants.value("exec")
    only = f"only {', '.join(map(str, value))} is granted" if isinstance(value, tuple) else "none is granted"
    return replace(
        verdict,
        allowed=False,
        capability="exec",
        target=program[:200],
        reason=f"exec {program[:200]} is not granted to {agent}: {only}",
        how_to_obtain=how_to_obtain(agent, "exec"),
    )
