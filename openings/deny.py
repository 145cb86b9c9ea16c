"""Lines that are never to be run: what they do is looked at as a shell would parse it, not as a substring.

Knows: how a machine or a home is destroyed by one line. Does not know: anything about intent; a sentence that
mentions such a line is no such line. This is a courtesy at the prompt, not a boundary: guests have no shell,
and ``rlp`` runs no shell line itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from openings.shell import Command, parse

__all__ = ["denied"]

_WRAPPERS: Mapping[str, frozenset[str]] = {
    "sudo": frozenset("ugpCThrRtD") | {"user", "group", "prompt", "host"},
    "doas": frozenset("uC"),
    "env": frozenset("uCS") | {"unset", "chdir"},
    "nohup": frozenset(),
    "nice": frozenset("n") | {"adjustment"},
    "ionice": frozenset("cnp"),
    "time": frozenset("fo"),
    "timeout": frozenset("ks") | {"kill-after", "signal"},
    "stdbuf": frozenset("ioe"),
    "setsid": frozenset(),
    "command": frozenset(),
    "builtin": frozenset(),
    "exec": frozenset("a"),
    "busybox": frozenset(),
    "toybox": frozenset(),
    "xargs": frozenset("IindLnPsaE"),
    "then": frozenset(),
    "do": frozenset(),
    "else": frozenset(),
    "if": frozenset(),
    "while": frozenset(),
    "please": frozenset(),
    "run": frozenset(),
    "execute": frozenset(),
}
"""Commands that run the rest of their words, with those of their options that take a value."""

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "ash"})
_FETCHERS = frozenset({"curl", "wget", "fetch"})

_CRITICAL_WORDS = """
    / /bin /boot /dev /etc /home /lib /lib32 /lib64 /opt /proc /root /run /sbin /srv /sys /usr /var
    /usr/bin /usr/lib /usr/sbin /usr/local /var/lib ~
"""
_CRITICAL = frozenset(_CRITICAL_WORDS.split())
_HOMES = re.compile(r"(?:/home/[^/]+|~[a-z_][a-z0-9_-]*)\Z")
_DISK = re.compile(r"/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk|mapper/|dm-|md|loop)[A-Za-z0-9/_-]*\Z")
_ACCOUNTS = frozenset({"/etc/passwd", "/etc/shadow", "/etc/sudoers", "/etc/fstab", "/boot/grub/grub.cfg"})
_BOMB = re.compile(r"([\w:.]{1,32})\(\)\{\1(?:\|\1)+&?\};?\1")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_MAX_LEVEL = 4


def denied(line: str, level: int = 0) -> str | None:
    """Why a line must never be run, in words; None when it may be."""
    if _BOMB.search("".join(line.split())):
        return "it is a fork bomb"
    before: Command | None = None
    for command in parse(line):
        reason = _judge(command, before, level)
        if reason is not None:
            return reason
        before = command
    return None


def _judge(command: Command, before: Command | None, level: int) -> str | None:
    reason = _overwritten(command.writes)
    argv, fed = _unwrap(command.argv)
    if reason is not None or not argv:
        return reason
    source = before if command.piped and before is not None and before.argv else None
    if fed and source is not None:
        argv = [*argv, *source.argv[1:]]  # xargs: what was printed becomes arguments
    name = posixpath.basename(argv[0])
    if level < _MAX_LEVEL:
        inner = _inner(name, argv, source)
        if inner is not None:
            return denied(inner, level + 1)
    if name in _SHELLS and source is not None and posixpath.basename(source.argv[0]) in _FETCHERS:
        return f"it runs what {posixpath.basename(source.argv[0])} fetches, unseen"
    rule = _RULES.get(name.partition(".")[0])
    return None if rule is None else rule(argv)


def _overwritten(targets: list[str]) -> str | None:
    for target in targets:
        path = _normal(target)
        if _DISK.match(path):
            return f"it overwrites the disk {path}"
        if path in _ACCOUNTS:
            return f"it overwrites {path}"
    return None


def _unwrap(argv: list[str]) -> tuple[list[str], bool]:
    """Strip assignments and commands that run the rest; and whether that was ``xargs``."""
    fed = False
    rest = list(argv)
    while rest:
        if _ASSIGNMENT.match(rest[0]):
            rest.pop(0)
            continue
        name = posixpath.basename(rest[0])
        if name not in _WRAPPERS:
            break
        fed = fed or name == "xargs"
        rest.pop(0)
        while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
            option = rest.pop(0)
            if option == "--":
                break
            if name == "env" and option in {"-S", "--split-string"} and rest:
                rest = [*rest[0].split(), *rest[1:]]
            elif rest and _takes_value(name, option):
                rest.pop(0)
        if name == "timeout" and rest:
            rest.pop(0)  # its duration
    return rest, fed


def _takes_value(name: str, option: str) -> bool:
    if option.startswith("--"):
        return "=" not in option and option[2:] in _WRAPPERS[name]
    return option.startswith("-") and len(option) == 2 and option[1] in _WRAPPERS[name]


def _inner(name: str, argv: list[str], source: Command | None) -> str | None:
    """The line that a shell or ``eval`` is told to run, by an argument or through a pipe."""
    if name == "eval":
        return " ".join(argv[1:])
    if name in _SHELLS or name == "su":
        for word, after in pairwise(argv[1:]):
            if re.fullmatch(r"-[a-z]*c[a-z]*", word):
                return after
        if source is not None and posixpath.basename(source.argv[0]) in {"echo", "printf"}:
            return " ".join(source.argv[1:])
    return None


# --- rules per command ----------------------------------------------------------------------------


def _flags(argv: list[str]) -> tuple[set[str], list[str]]:
    """Options, short ones apart, and operands."""
    flags: set[str] = set()
    operands: list[str] = []
    for index, word in enumerate(argv[1:], 1):
        if word == "--":
            operands.extend(argv[index + 1 :])
            break
        if word.startswith("--"):
            flags.add(word.partition("=")[0])
        elif word.startswith("-") and len(word) > 1:
            flags.update(f"-{letter}" for letter in word[1:])
        else:
            operands.append(word)
    return flags, operands


def _normal(path: str) -> str:
    """A path without ``.``, ``..`` and doubled slashes; a trailing glob is the directory itself."""
    while path.endswith(("/*", "/.*", "/{*,.*}")):
        path = path[: path.rindex("/")] or "/"
    if path.startswith("~"):
        head, _, tail = path.partition("/")
        tail = posixpath.normpath(tail) if tail else "."
        return head if tail == "." else f"{head}/{tail}"
    normal = posixpath.normpath(path) if path else ""
    return "/" + normal.lstrip("/") if normal.startswith("/") else normal


def _critical(paths: list[str]) -> str | None:
    for path in paths:
        normal = _normal(path)
        if normal in _CRITICAL or _HOMES.match(normal):
            return path
    return None


def _rm(argv: list[str]) -> str | None:
    flags, operands = _flags(argv)
    if "--no-preserve-root" in flags:
        return "it removes the root of the file system"
    target = _critical(operands)
    if target is not None and flags & {"-r", "-R", "--recursive"}:
        return f"it removes {target} with everything in it"
    return None


def _recursive(verb: str) -> Callable[[list[str]], str | None]:
    def rule(argv: list[str]) -> str | None:
        flags, operands = _flags(argv)
        target = _critical(operands)
        if target is not None and flags & {"-R", "--recursive"}:
            return f"it {verb} {target} and everything in it"
        return None

    return rule


def _mv(argv: list[str]) -> str | None:
    target = _critical(_flags(argv)[1][:-1])
    return None if target is None else f"it moves {target} away"


def _find(argv: list[str]) -> str | None:
    starts = []
    for word in argv[1:]:
        if word.startswith(("-", "(", "!")) and word not in {"-L", "-H", "-P"}:
            break
        starts.append(word)
    removes = "-delete" in argv or any(
        word in {"-exec", "-execdir", "-ok"} and posixpath.basename(after) in {"rm", "shred", "unlink"}
        for word, after in pairwise(argv)
    )
    narrowed = any(word in {"-name", "-iname", "-path", "-regex", "-mtime", "-size"} for word in argv)
    target = _critical(starts)
    return f"it removes what is in {target}" if removes and target is not None and not narrowed else None


def _disks(verb: str) -> Callable[[list[str]], str | None]:
    def rule(argv: list[str]) -> str | None:
        for word in argv[1:]:
            if _DISK.match(_normal(word.removeprefix("of="))):
                return f"it {verb} the disk {word.removeprefix('of=')}"
        return None

    return rule


def _dd(argv: list[str]) -> str | None:
    return _disks("overwrites")([argv[0], *(word for word in argv[1:] if word.startswith("of="))])


def _last_disk(argv: list[str]) -> str | None:
    return _disks("overwrites")([argv[0], *argv[-1:]])


_RULES: Mapping[str, Callable[[list[str]], str | None]] = {
    "rm": _rm,
    "chmod": _recursive("changes the modes of"),
    "chown": _recursive("changes the owner of"),
    "chgrp": _recursive("changes the group of"),
    "mv": _mv,
    "find": _find,
    "dd": _dd,
    "mkfs": _disks("formats"),
    "mke2fs": _disks("formats"),
    "mkswap": _disks("formats"),
    "wipefs": _disks("wipes"),
    "shred": _disks("shreds"),
    "blkdiscard": _disks("discards"),
    "sgdisk": _disks("repartitions"),
    "tee": _disks("overwrites"),
    "cp": _last_disk,
}
