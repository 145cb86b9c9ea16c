"""What the operator says of one MCP server: a program with its rights, or a place in the web.

Knows: the shape, what in it is refused, how it is shown before anybody agrees. Does not know: whether it was
agreed to (``mcp.book``), how it is started (``mcp.cell``). Pure but for looking for a program's file.

A program is an argument vector, never a line for a shell. What a server may reach is what is written here:
folders, hosts, secrets by name. A place in the web is the operator's own word, never a server's: no address
that a server sends (authorisation, metadata, redirects) is followed (attacks.md M2, M12).
"""

from __future__ import annotations

import os
import re
import shutil
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import msgspec

from runloop.caps.destination import Destination, kind_of_address, parse_destination
from runloop.caps.grants import GrantError, NetRule, parse_hosts
from runloop.digest import digest
from runloop.errors import NotFoundError, RunloopError, UsageError

__all__ = ["ServerSpec", "checked", "shown"]

_ENV = re.compile(r"[A-Z_][A-Z0-9_]{0,63}\Z")
_SECRET = re.compile(r"runloop/[a-z0-9_-]+/[A-Za-z0-9_.-]+\Z")
_OURS = frozenset({"PATH", "HOME", "TMPDIR", "LANG", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"})
_SYSTEM = ("/usr", "/bin", "/sbin")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
Word = Annotated[str, msgspec.Meta(max_length=4_096)]


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One server. Exactly one of ``argv`` and ``url``."""

    argv: Annotated[tuple[Word, ...], msgspec.Meta(max_length=256)] = ()
    """The program, by absolute path, and its arguments."""
    url: Annotated[str, msgspec.Meta(max_length=2_048)] | None = None
    env: dict[str, Word] = {}
    """Plain settings of the program: they are on record."""
    secrets: dict[str, str] = {}
    """Environment variable -> name of the secret; ``bearer`` -> the one sent to an ``url``."""
    net: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Hosts the program may reach; for an ``url``: addresses that are not public and meant all the same."""
    ro: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    rw: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    legacy: bool = False
    """Speak the protocol of 2025-11-25 without asking for a newer one first."""

    @property
    def digest(self) -> str:
        """Names the whole of it."""
        return digest(self.to_json())

    @property
    def place(self) -> Destination | None:
        """Where a server over HTTP is."""
        return None if self.url is None else parse_destination(self.url)

    @property
    def summary(self) -> str:
        """One line, for lists."""
        return self.url if self.url is not None else " ".join(self.argv)

    def rules(self) -> tuple[NetRule, ...]:
        """What a program may reach."""
        found = parse_hosts(list(self.net))
        return tuple(rule for rule in found if isinstance(rule, NetRule)) if isinstance(found, tuple) else ()

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ServerSpec:
        """Inverse of :meth:`to_json`; raises :class:`UsageError` (``mcp.spec``)."""
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise UsageError(f"the server: {error}", code="mcp.spec") from error


def checked(spec: ServerSpec) -> ServerSpec:
    """The same with the program's absolute path and folders resolved.

    Raises :class:`UsageError` (``mcp.spec``) or :class:`NotFoundError` saying what is wrong.
    """
    if bool(spec.argv) == (spec.url is not None):
        raise _bad("give either a program after '--', or --url", "rlp mcp add NAME -- PROGRAM ARG…")
    for name in spec.secrets.values():
        if not _SECRET.match(name):
            raise _bad(f"{name[:80]!r} is no name of a secret", "write runloop/mcp/NAME")
    return _checked_url(spec) if spec.url is not None else _checked_program(spec)


def _checked_url(spec: ServerSpec) -> ServerSpec:
    place = parse_destination(spec.url or "")
    if spec.env or spec.ro or spec.rw:
        raise _bad(
            "a server in the web takes no folders and no environment", "give --url, --secret and --net"
        )
    if set(spec.secrets) - {"bearer"}:
        raise _bad("a server in the web takes one secret, its token", "--secret runloop/mcp/NAME")
    for text in spec.net:
        try:
            ip_address(text)
        except ValueError:
            raise _bad(
                f"{text[:64]!r} is no address", "with --url, --net names an address, as 10.0.0.5"
            ) from None
    if place.scheme != "https" and not _on_this_machine(place):
        raise _bad("without TLS anybody between here and there could be the server", "write https://")
    return msgspec.structs.replace(spec, url=str(place))


def _on_this_machine(place: Destination) -> bool:
    address = place.address
    return place.host == "localhost" or (address is not None and address.is_loopback)


def _checked_program(spec: ServerSpec) -> ServerSpec:
    for text in (*spec.argv, *spec.env.values()):
        if "\0" in text:
            raise _bad("an argument has a NUL byte in it", "leave it out")
    for name in (*spec.env, *spec.secrets):
        if not _ENV.match(name) or name in _OURS | _PROXIES:
            raise _bad(f"{name[:64]!r} is no environment variable a server is given", "use another NAME")
    if both := set(spec.env) & set(spec.secrets):
        raise _bad(f"{min(both)} is given twice", "leave one out")
    try:
        parse_hosts(list(spec.net))
    except (GrantError, RunloopError) as error:
        raise _bad(f"--net: {error}", "write a host, as api.example.org or api.example.org:8443") from error
    rw = {_folder(text) for text in spec.rw}
    ro = {_folder(text) for text in spec.ro} - rw
    program = _program(spec.argv[0])
    if not any(Path(program).is_relative_to(place) for place in (*_SYSTEM, *ro, *rw)):
        raise _bad(f"its sandbox would not have {program}", f"add --ro {Path(program).parent.parent}")
    return msgspec.structs.replace(
        spec, argv=(program, *spec.argv[1:]), ro=tuple(sorted(ro)), rw=tuple(sorted(rw))
    )


def _program(text: str) -> str:
    found = text if text.startswith("/") else shutil.which(text)
    if found is None or not Path(found).is_file() or not os.access(found, os.X_OK):
        raise NotFoundError(
            f"there is no program {text[:200]!r} here", hint="give its whole path", code="mcp.program"
        )
    return os.path.normpath(found)  # a link keeps its name: what a program does may hang on it


def _folder(text: str) -> str:
    if not text.startswith("/"):
        raise _bad(f"{text[:200]!r} is no whole path", "begin it with '/'")
    real = Path(text).resolve()
    if not real.is_dir():
        raise NotFoundError(
            f"there is no folder {text[:200]!r}", hint="look at --ro and --rw", code="mcp.folder"
        )
    if real == Path("/"):
        raise _bad("the whole machine is no folder to grant", "name the folders it needs")
    return str(real)


def _bad(why: str, hint: str) -> UsageError:
    return UsageError(f"this server cannot be added: {why}", hint=hint, code="mcp.spec")


def shown(name: str, spec: ServerSpec) -> str:
    """Exactly what will run and what it will reach, for a person. Texts stand inside quotes."""
    lines = [f"server        {name}"]
    if spec.url is not None:
        place = spec.place
        assert place is not None
        kind = kind_of_address(place.address) if place.address is not None else None
        lines += [
            f"connects to   {spec.url}",
            f"address       {kind or 'public addresses only'}"
            + (f", and {', '.join(spec.net)}" if spec.net else ""),
            f"token         {spec.secrets.get('bearer', 'none')}",
        ]
    else:
        lines += [f"runs          {spec.argv[0]!r}"]
        lines += [f"argument      {text!r}" for text in spec.argv[1:]]
        lines += [f"environment   {key}={value!r}" for key, value in sorted(spec.env.items())]
        lines += [f"secret        {key} from {value}" for key, value in sorted(spec.secrets.items())]
        lines += [f"network       {', '.join(spec.net) if spec.net else 'none'}"]
        lines += [f"reads         {text!r}" for text in spec.ro]
        lines += [f"changes       {text!r}" for text in spec.rw]
        folders = "these, nothing else" if spec.ro or spec.rw else "none but the system's programs"
        lines += [f"folders       {folders}"]
    lines += [
        "",
        "It runs in a sandbox, as a program of somebody else's. None of its tools can be",
        "called before you have seen and approved each of them: 'rlp mcp approve'.",
    ]
    return "\n".join(lines) + "\n"
