"""Command lines inside the words of a command: ``sh -c '...'``, ``perl -e '...'``, ``git -c alias.x='!...'``.

Knows: which programs run a line they are given, and where among their words it stands. Does not know: what is
harmful; it hands out candidates, and a candidate that is no command line does no harm.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

__all__ = ["CARRIERS", "INTERPRETERS", "SHELLS", "after_c", "carried", "coded", "quoted"]

SHELLS = frozenset(
    {"sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "ash", "tcsh", "csh", "rbash", "pwsh"}
)
INTERPRETERS = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|deno|bun|php|lua|tclsh|awk|gawk|mawk)[\d.]*\Z"
)
_CODE = re.compile(r"system|exec|popen|spawn|subprocess|run|call|`|%x|sh\b|shell|remove", re.IGNORECASE)
_TREES = re.compile(
    r"(?:rmtree|removeSync|rmSync|rm_rf|remove_entry|rm|unlink|remove_dir_all)\W", re.IGNORECASE
)
_STRINGS = re.compile(r"\"([^\"]*)\"|'([^']*)'|`([^`]*)`|[({]([^(){}'\"]*)[)}]")
_FORKS = re.compile(r"(?=.*\bfork\b)(?=.*(?:while|for\b|loop|until|redo))", re.DOTALL)
_CARRIERS_WORDS = """
    abbr adb alias crontab dbus-launch docker emacs ex expect git kubectl less lxc make man nvim podman
    runuser screen script ssh su tar tmux trap vagrant vi vim
"""
CARRIERS = frozenset(_CARRIERS_WORDS.split())
"""Programs among whose words a whole command line may stand."""
_REMOTE = frozenset({"rm", "dd", "mkfs", "shred", "wipefs", "chmod", "chown", "find", "sudo", *SHELLS})


def after_c(words: list[str]) -> Iterator[str]:
    """What follows ``-c``, and the value of ``--command=...``."""
    for at, word in enumerate(words):
        if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*|--command|--session-command", word) and at + 1 < len(words):
            line = words[at + 1]
            given = words[at + 2 :]
            yield line
            if given and "$" in line:
                yield f"set -- {' '.join(map(quoted, given[1:]))}; {line}"
        elif word.startswith("--command="):
            yield word.partition("=")[2]
        elif word.startswith("-c") and len(word) > 2 and " " in word:
            yield word[2:]


def coded(words: list[str]) -> Iterator[str]:
    """Command lines, and trees to remove, in the code that an interpreter is given."""
    for code in words:
        if _FORKS.search(code):
            yield ":(){ :|:& };:"
        strings = ["".join(part or "" for part in found) for found in _STRINGS.findall(code)]
        if _TREES.search(code):
            if re.search(r"\bhome\(\)|expanduser|HOME|homedir", code):
                yield "rm -r ~"
            yield from (f"rm -r {quoted(text)}" for text in strings if text.startswith(("/", "~")))
        if "open" in code and re.search(r"['\"][rb+]*[wa][b+]*['\"]|>", code):
            yield from (f"> {quoted(text)}" for text in strings if text.startswith("/"))
        if _CODE.search(code):
            yield from strings[:256]
            yield " ".join(text.strip(" ,") for text in strings[:256])


def carried(name: str, words: list[str]) -> Iterator[str]:
    """Command lines among the words of a program that can run one."""
    yield from after_c(words)
    for at, word in enumerate(words[:512]):
        if name in {"trap", "alias", "abbr", "tmux", "screen"} and at < 4:
            yield word
        _, equals, value = word.partition("=")
        if equals and name not in {"docker", "podman"}:
            yield value.removeprefix("exec=").lstrip("!")
        bare = word.lstrip(":")
        if bare.startswith("!"):
            yield bare[1:]
    if name in {"ssh", "docker", "podman", "kubectl", "lxc", "adb", "git", "abbr"}:
        # The command begins at some word that is none of its own options.
        for at, word in enumerate(words[:128]):
            before = words[:at]
            mounted = "run" in before and any(one.startswith(("/:", "--volume=/:")) for one in before)
            if posixpath.basename(word) in _REMOTE and (
                name in {"ssh", "adb"} or "exec" in before or mounted
            ):
                yield " ".join(words[at:])
            elif name == "ssh" and " " in word:
                yield word


def quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
