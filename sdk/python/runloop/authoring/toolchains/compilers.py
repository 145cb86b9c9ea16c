"""Foreign compilers: finding them, asking their version, running them where they see nothing of this machine.

Knows: the surroundings in which a compiler gives the same bytes everywhere, and how its complaints are
shortened for a person. Does not know: any language.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from runloop.authoring.toolchains import BuildFailed

__all__ = ["LLVM_VERSIONS", "ask", "find", "run", "version_in"]

LLVM_VERSIONS = range(22, 13, -1)
"""Of Debian's packages whose programs carry a number, newest first."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
ASK_TIMEOUT_S = 20
BUILD_TIMEOUT_S = 600
MAX_COMPLAINT_CHARS = 8_000


def find(*names: str) -> Path | None:
    """The first of these programs that this machine has: on the caller's PATH, or where Debian puts them."""
    path = os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATH))
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return Path(found)
    return None


def ask(*argv: str | Path) -> str:
    """What a tool prints of itself, in the caller's surroundings (rustup needs them); "" when it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version_in(told: str) -> str:
    """The version in what a tool prints of itself; "0.0" when there is none."""
    found = re.search(r"\d+\.\d+(\.\d+)?", told)
    return found.group() if found else "0.0"


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    work: Path,
    hide: Mapping[Path, str],
    environ: Mapping[str, str] | None = None,
) -> None:
    """Run a compiler; its home and its temporary files lie in ``work``.

    ``hide`` gives folders the names that they have in what a person is shown. Raises :class:`BuildFailed`
    with the compiler's own lines.
    """
    surroundings = {
        "PATH": SYSTEM_PATH,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": "0",
        **(environ or {}),
    }
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(
            f"{Path(argv[0]).name} ran longer than {BUILD_TIMEOUT_S} s and was stopped"
        ) from error
    except OSError as error:
        raise BuildFailed(f"{Path(argv[0]).name} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        words = done.stdout.strip() or f"{Path(argv[0]).name} ended with {done.returncode}"
        for folder, name in hide.items():
            words = words.replace(f"{folder}/", name).replace(str(folder), name.rstrip("/") or ".")
        raise BuildFailed(_shortened(words), hint="correct what the compiler names, then build again")


def _shortened(words: str) -> str:
    """The first complaints: the rest usually follows from them."""
    words = re.sub(r"\x1b\[[0-9;]*m", "", words)
    if len(words) <= MAX_COMPLAINT_CHARS:
        return words
    return words[:MAX_COMPLAINT_CHARS].rsplit("\n", 1)[0] + "\n(more lines were left out)"
