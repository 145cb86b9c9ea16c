"""Which words this machine knows as commands: looked up in ``PATH``, one word at a time, when asked.

Knows: ``PATH``, and words that a shell said are its own (aliases, functions). Does not know: what a command
does. A look costs one question to the file system per folder, for the few words a line is asked about; no
folder is listed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping

__all__ = ["Known"]

_MAX_NAME = 64
_MAX_FOLDERS = 64


class Known:
    """The commands of this machine, as ``word in known``."""

    def __init__(
        self, environ: Mapping[str, str], always: Collection[str], told: Collection[str] = ()
    ) -> None:
        """``always``: commands whether installed or not (a typed ``make`` means the command all the same);
        ``told``: aliases and functions of the shell that asks."""
        self._always = always
        self._found: dict[str, bool] = dict.fromkeys(told, True)
        # An empty or relative folder is left out: what lies in the folder one is in decides nothing.
        folders = environ.get("PATH", os.defpath).split(os.pathsep)
        self._folders = [folder for folder in dict.fromkeys(folders) if folder.startswith("/")][:_MAX_FOLDERS]

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str) or not word or len(word) > _MAX_NAME or "/" in word or "\0" in word:
            return False
        if word in self._always:
            return True
        if word not in self._found:
            self._found[word] = word.isprintable() and any(_runs(f"{at}/{word}") for at in self._folders)
        return self._found[word]


def _runs(path: str) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs start-up time
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)
