"""What destroys a machine or a home, command by command: argv in, a reason in words out.

Knows: options in any order and spelling, paths however they are written, globs. Does not know: how a line
becomes commands (``shell``), or which command a wrapper runs (``deny``). What only might be is not denied:
``git push --force`` and ``docker system prune`` are for their user to regret.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from openings.expansion import NAMED

__all__ = ["STARTUP", "critical", "is_critical", "normal", "overwritten", "ruin"]

_CRITICAL_WORDS = """
    / /bin /boot /boot/efi /dev /etc /etc/ssh /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run
    /sbin /srv /sys /usr /usr/bin /usr/lib /usr/lib64 /usr/local /usr/sbin /usr/share /var /var/lib
    /var/lib/dpkg /Users /System /Library /Applications ~
"""
_CRITICAL = frozenset(_CRITICAL_WORDS.split())
_HOMES = re.compile(r"(?:/(?:home|Users)/[^/]+|/mnt/[a-z]|~[A-Za-z_$][\w.${}-]*)\Z")
_DISK = re.compile(
    r"/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk|rdisk|mapper/|block/|dm-|md|loop|mem\Z|kmem\Z|port\Z)[\w/.:+-]*\Z"
)
_FILES_WORDS = """
    /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/sudoers /etc/fstab /etc/ld.so.preload
    /boot/grub/grub.cfg /bin/sh /bin/bash /usr/bin/sudo /sbin/init /usr/sbin/init /lib/systemd/systemd
    /proc/sysrq-trigger
"""
_FILES = frozenset(_FILES_WORDS.split())
STARTUP = re.compile(
    r"(?:~|/root|/home/[^/]+)/\.(?:bashrc|bash_profile|profile|zshrc|zshenv|zprofile|xprofile)\Z"
    r"|~/\.config/fish/\S+|/etc/(?:cron\S*|profile\S*|rc\.local|bash\.bashrc)\Z"
)
"""Files whose lines are run later."""
_NARROWING_WORDS = """
    -name -iname -path -ipath -wholename -regex -iregex -mtime -atime -ctime -mmin -amin -cmin -newer
    -size -empty  -user -group -uid -gid -nouser -perm -inum -samefile
"""
_NARROWING = frozenset(_NARROWING_WORDS.split())
_EVERYTHING = frozenset({"*", "*.*", "**", "?*", "*?", ".*", "/*", "*/*"})
_REMOVERS = frozenset({"rm", "shred", "unlink", "srm", "rmdir", "wipe"})
_MAX_GLOB = 256
_UPWARDS = 4
"""So many ``..`` in a row lead to the root from nearly everywhere."""


# --- paths ----------------------------------------------------------------------------------------


def normal(path: str, place: str | None = None) -> str:
    """A path without ``.``, ``..`` and doubled slashes, as seen from ``place``; a trailing glob is the
    directory itself, and a variable that may be empty is taken as empty behind a slash."""
    if path.startswith("/") and "$" in path:
        path = NAMED.sub("", path) or "/"
    stem = path
    while (last := stem.rpartition("/")[2]) in {
        "*",
        ".*",
        "**",
        "{*,.*}",
        "?*",
        ".??*",
        ".[!.]*",
        "$()",
    } and ("/" in stem or last in {"*", ".*", "**"}):
        stem = stem[: -len(last)].rstrip("/") or ("/" if stem.startswith("/") else ".")
    if place is not None and not stem.startswith(("/", "~", "$")):
        stem = f"{place.rstrip('/') or '/'}/{stem}"
    if stem.startswith("~"):
        head, _, tail = stem.partition("/")
        tail = posixpath.normpath(tail) if tail else "."
        if tail == "..":
            return "/home"
        if tail.startswith("../.."):
            return "/" + tail[5:].lstrip("./")
        return head if tail == "." else f"{head}/{tail}"
    flat = posixpath.normpath(stem) if stem else ""
    if stem != path and flat.split("/")[:_UPWARDS] == [".."] * _UPWARDS:
        return "/"
    return "/" + flat.lstrip("/") if flat.startswith("/") else flat


def is_critical(path: str, place: str | None = None) -> bool:
    """Whether a path is a system's or a home's root, however it is written."""
    flat = normal(path, place)
    if flat in _CRITICAL or _HOMES.match(flat):
        return True
    return (
        (len(flat) < _MAX_GLOB or flat.count("/") < 3)
        and bool(re.search(r"[*?\[]", flat))
        and flat.startswith("/")
        and _glob(flat, _CRITICAL)
    )


def _glob(pattern: str, names: Iterable[str]) -> bool:
    """Whether a shell's glob meets one of the names: a glob does not cross a slash."""
    from fnmatch import fnmatchcase

    depth = pattern.count("/")
    return any(name != "/" and name.count("/") == depth and fnmatchcase(name, pattern) for name in names)


def critical(paths: Iterable[str], place: str | None = None) -> str | None:
    """The first path that is critical."""
    return next((path for path in paths if is_critical(path, place)), None)


def overwritten(targets: Iterable[str], place: str | None = None) -> str | None:
    """Why nothing may be written to one of these."""
    for target in targets:
        path = normal(target, place)
        if _DISK.match(path):
            return f"it overwrites the disk {path}"
        if path in _FILES:
            return f"it overwrites {path}"
    return None


# --- one command ----------------------------------------------------------------------------------


def ruin(argv: list[str], place: str | None = None) -> str | None:
    """Why this command is never run, or None. ``place``: the working directory, where the line says so."""
    name = posixpath.basename(argv[0])
    if len(name) < _MAX_GLOB and re.search(r"[*?\[]", name):
        from fnmatch import fnmatchcase

        fitting = [known for known in _RULES if fnmatchcase(known, name)] if name.strip("*?") else []
        reasons = (_RULES[known]([known, *argv[1:]], place) for known in fitting)
        return next((reason for reason in reasons if reason), None)
    rule = _RULES.get(name.partition(".")[0]) or _RULES.get(name)
    return None if rule is None else rule(argv, place)


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


def _long(flags: set[str], name: str) -> bool:
    """Whether a long option is there, in full or cut short as GNU's programs allow."""
    return any(name.startswith(flag) and len(flag) > 2 for flag in flags)


def _rm(argv: list[str], place: str | None) -> str | None:
    flags, operands = _flags(argv)
    if _long(flags, "--no-preserve-root") and any("--no-p" in flag for flag in flags):
        return "it removes the root of the file system"
    recursive = bool(flags & {"-r", "-R"}) or _long(flags, "--recursive")
    for operand in operands:
        whole = normal(operand, place)
        if recursive and is_critical(operand, place):
            return f"it removes {operand} with everything in it"
        if whole in _FILES or _DISK.match(whole):
            return f"it removes {operand}"
        if whole == "/boot" and operand.endswith("*"):
            return "it removes what the machine starts with"
    return None


def _recursive(verb: str) -> Callable[[list[str], str | None], str | None]:
    def rule(argv: list[str], place: str | None) -> str | None:
        flags, operands = _flags(argv)
        target = critical(operands, place)
        if target is not None and ("-R" in flags or _long(flags, "--recursive")):
            return f"it {verb} {target} and everything in it"
        return None

    return rule


def _chmod(argv: list[str], place: str | None) -> str | None:
    reason = _recursive("changes the modes of")(argv, place)
    if reason is None and any(re.fullmatch(r"0{1,4}|a?-rwx|a?-rx|a?-x|[augo]*=", word) for word in argv[1:]):
        target = critical(argv[2:], place) or next((p for p in argv[2:] if normal(p, place) in _FILES), None)
        return None if target is None else f"it takes {target} away from everybody"
    return reason


def _mv(argv: list[str], place: str | None) -> str | None:
    flags, operands = _flags(argv)
    sources = operands if flags & {"-t", "--target-directory"} else operands[:-1]
    for source in sources:
        if is_critical(source, place) or normal(source, place) in _FILES:
            return f"it moves {source} away"
    return None


def _find(argv: list[str], place: str | None) -> str | None:
    starts: list[str] = []
    for word in argv[1:]:
        if word.startswith(("-", "(", "!")):
            if word in {"-L", "-H", "-P"}:
                continue
            break
        starts.append(word)
    acts = {"-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"}
    removes = "-delete" in argv or any(
        word in acts and (posixpath.basename(after) in _REMOVERS or after in {"sh", "bash", "sudo"})
        for word, after in pairwise(argv)
    )
    narrowed = not {"-o", "-or", "-not", "!", ","} & {*argv} and any(
        word in _NARROWING and after not in _EVERYTHING for word, after in pairwise(argv)
    )
    if argv[0].endswith("fd") and removes:
        starts, narrowed = starts[1:] or starts, starts[:1] not in ([], ["."], [".*"], [""])
    target = critical(starts, place)
    return f"it removes what is in {target}" if removes and target is not None and not narrowed else None


def _disks(verb: str) -> Callable[[list[str], str | None], str | None]:
    def rule(argv: list[str], place: str | None) -> str | None:
        for word in argv[1:]:
            if _DISK.match(normal(word.removeprefix("of="), place)):
                return f"it {verb} the disk {word.removeprefix('of=')}"
        return None

    return rule


def _dd(argv: list[str], place: str | None) -> str | None:
    return overwritten([word[3:] for word in argv[1:] if word.startswith("of=")], place)


def _operands(argv: list[str], place: str | None) -> str | None:
    return overwritten(_flags(argv)[1], place)


def _last(argv: list[str], place: str | None) -> str | None:
    return overwritten(argv[-1:], place)


def _cp(argv: list[str], place: str | None) -> str | None:
    operands = _flags(argv)[1]
    sources = {normal(word) for word in operands[:-1]}
    if sources & {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}:
        return overwritten(operands[-1:], place)
    target = operands[-1:] if operands and _DISK.match(normal(operands[-1], place)) else []
    return overwritten(target, place)


def _shred(argv: list[str], place: str | None) -> str | None:
    target = critical(_flags(argv)[1], place)
    return f"it shreds {target}" if target is not None else _operands(argv, place)


def _told(verb: str, *words: str) -> Callable[[list[str], str | None], str | None]:
    """A rule for programs that harm a disk only when they are told one of some words."""

    def rule(argv: list[str], place: str | None) -> str | None:
        told = any(word == wanted or word.startswith(wanted + "=") for word in argv[1:] for wanted in words)
        return _disks(verb)(argv, place) if told else None

    return rule


def _kill(argv: list[str], _: str | None) -> str | None:
    words = [word for word in argv[1:] if word != "--"]
    target = words[1:] if words and words[0].startswith("-") else words
    if words[:1] in (["-s"], ["-n"]):
        target = words[2:]
    return "it kills every process of yours" if "-1" in target else None


def _tar(argv: list[str], place: str | None) -> str | None:
    target = critical(_flags(argv)[1], place) if "--remove-files" in argv else None
    return None if target is None else f"it removes {target} with everything in it"


def _rsync(argv: list[str], place: str | None) -> str | None:
    flags, operands = _flags(argv)
    target = critical(operands[-1:], place)
    deletes = any(flag.startswith("--del") for flag in flags)
    return f"it removes from {target} what is not in the source" if deletes and target is not None else None


_FORMATS = _disks("formats")
_RULES: Mapping[str, Callable[[list[str], str | None], str | None]] = {
    "rm": _rm,
    "srm": _rm,
    "unlink": _rm,
    "chmod": _chmod,
    "chown": _recursive("changes the owner of"),
    "chgrp": _recursive("changes the group of"),
    "setfacl": _recursive("changes the rights of"),
    "chattr": _recursive("changes the attributes of"),
    "mv": _mv,
    "find": _find,
    "fd": _find,
    "fdfind": _find,
    "bfs": _find,
    "dd": _dd,
    "dcfldd": _dd,
    "dc3dd": _dd,
    "ddrescue": lambda argv, place: overwritten(_flags(argv)[1][1:2], place),
    "mkfs": _FORMATS,
    "mke2fs": _FORMATS,
    "mkswap": _FORMATS,
    "newfs": _FORMATS,
    "mkdosfs": _FORMATS,
    "mkntfs": _FORMATS,
    "pvcreate": _FORMATS,
    "wipefs": _disks("wipes"),
    "wipe": _disks("wipes"),
    "scrub": _disks("wipes"),
    "shred": _shred,
    "blkdiscard": _disks("discards"),
    "sgdisk": _disks("repartitions"),
    "sfdisk": _told("repartitions", "--delete", "--wipe", "-w", "--force", "-f"),
    "parted": _told("repartitions", "mklabel", "mktable", "rm", "mkpart"),
    "hdparm": _told("erases", "--security-erase", "--security-erase-enhanced", "--trim-sector-ranges"),
    "nvme": _told("erases", "format", "sanitize"),
    "cryptsetup": _told("formats", "luksFormat", "luksErase", "erase", "reencrypt"),
    "mdadm": _told("erases", "--zero-superblock"),
    "badblocks": _told("overwrites", "-w"),
    "diskutil": _told("erases", "eraseDisk", "zeroDisk", "secureErase"),
    "tar": _tar,
    "tee": _operands,
    "sponge": _operands,
    "truncate": _operands,
    "cp": _cp,
    "install": _last,
    "ln": lambda argv, place: overwritten(argv[-1:], place) if _flags(argv)[0] & {"-f", "--force"} else None,
    "kill": _kill,
    "rsync": _rsync,
    "rimraf": lambda argv, place: _rm(["rm", "-r", *argv[1:]], place),
    "trash": lambda argv, place: _rm(["rm", "-r", *argv[1:]], place),
    "trash-put": lambda argv, place: _rm(["rm", "-r", *argv[1:]], place),
    "killall5": lambda argv, place: "it kills every process",
}
