"""A new agent's folder, from a template that came with this distribution.

Knows: where templates lie, the words in them that are replaced, that nothing is overwritten. Does not know:
languages beyond their names. Needs no network, no toolchain, no daemon.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from runloop import __version__
from runloop.authoring.toolchains import LANGUAGES
from runloop.config import Shipped, shipped
from runloop.errors import ConflictError, FailedError, NotFoundError, UsageError
from runloop.spelling import nearest

__all__ = ["scaffold"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_LONG = {"typescript": "ts", "javascript": "js", "node": "js", "py": "python", "rs": "rust"}
"""What people call a language -> the word ``--lang`` takes."""
_FROM_SDK: dict[str, tuple[Shipped, str]] = {"ts": ("sdk/js", "runloop/runloop.d.ts")}
"""Language -> the file of its SDK that an editor wants beside the source."""
_WORDS = ("__NAME__", "__RUNLOOP__")


def scaffold(name: str, language: str, target: Path) -> list[str]:
    """Write a new agent to ``target``, all of it or nothing; return its files, sorted.

    Raises :class:`UsageError` for a name or language that cannot be, :class:`ConflictError` when there is
    something at ``target`` already, :class:`FailedError` when it cannot be written.
    """
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} is not a name for an agent",
            hint="use lower-case letters, digits and underscores, starting with a letter",
            code="agent.name",
        )
    if language not in LANGUAGES:
        raise UsageError(
            f"there is no language {language!r}", hint=_languages(language), code="agent.language"
        )
    source = shipped("templates") / language
    if not source.is_dir():
        raise NotFoundError(
            f"the template for {language} is missing", hint="install runloop again", code="config.shipped"
        )
    if target.exists() or target.is_symlink():
        raise ConflictError(
            f"{target} is there already",
            hint="nothing was changed; choose another --dir",
            code="agent.exists",
        )
    made = _filled(source, name)
    made["LICENSE"] = (shipped("templates") / "LICENSE").read_text(encoding="utf-8")
    if language in _FROM_SDK:
        sdk, path = _FROM_SDK[language]
        made[Path(path).name] = (shipped(sdk) / path).read_text(encoding="utf-8")
    _write(target, made)
    return sorted(made)


def _languages(meant: str) -> str:
    """What ``--lang`` takes, and which of it somebody may have meant."""
    word = meant.strip().lower()
    near = _LONG.get(word) or nearest(word, LANGUAGES)
    known = f"known: {', '.join(LANGUAGES)}"
    return f"did you mean '--lang {near}'? {known}" if near else known


def _filled(source: Path, name: str) -> dict[str, str]:
    """Path -> text of the new folder."""
    made = {}
    for file in sorted(source.rglob("*")):
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        path = file.relative_to(source).as_posix().replace("dot_gitignore", ".gitignore")
        made[_replaced(path.removesuffix(".tmpl"), name)] = _replaced(file.read_text(encoding="utf-8"), name)
    return made


def _replaced(text: str, name: str) -> str:
    for word, value in zip(_WORDS, (name, __version__), strict=True):
        text = text.replace(word, value)
    return text


def _write(target: Path, made: dict[str, str]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            for path, text in made.items():
                (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                (fresh / path).write_text(text, encoding="utf-8")
            fresh.chmod(0o755)
            fresh.rename(target)  # fails when somebody made it meanwhile and put something in
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise FailedError(
            f"{target} cannot be written: {error.strerror}",
            hint="choose another --dir",
            code="agent.scaffold",
        ) from error
