"""Modules of the SDK that are served to Python agents as source, beside their own: ``runloop.collab``,
``runloop.loop`` and ``runloop.speech``.

Unlike ``runloop.agent`` they are not frozen into the runner, so that they may grow without a new build of
it. An agent that imports none of them is given none, and starts as it always did. What was served is part of
what a replay needs: a run records :func:`library_digest`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec

from runloop.digest import canonical, digest
from runloop.errors import UsageError

__all__ = ["library_digest", "library_source", "read_library", "served_beside", "uses_library"]

_ROOTS = ("collab", "loop", "speech")
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+runloop[ \t]+import\b(?P<names>[^#\n(]*(?:\([^)]*\))?)"
    r"|(?:from|import)[ \t]+runloop\.(?P<root>\w+))",
    re.MULTILINE,
)


@cache
def _library() -> Mapping[str, str]:
    """Dotted name -> source of everything that may be served."""
    found: dict[str, str] = {}
    home = files("runloop")
    for root in _ROOTS:
        single, folder = home / f"{root}.py", home / root
        if single.is_file():
            found[f"runloop.{root}"] = single.read_text("utf-8")
        elif folder.is_dir():
            for one in folder.iterdir():
                if one.name.endswith(".py"):
                    name = one.name.removesuffix(".py")
                    dotted = f"runloop.{root}" if name == "__init__" else f"runloop.{root}.{name}"
                    found[dotted] = one.read_text("utf-8")
    return found


@cache
def library_digest() -> str:
    """Names the sources: equal digests, equal modules."""
    return digest(dict(_library()))


def library_source() -> bytes:
    """The sources as they are kept, so that runs they served outlive their next version."""
    return canonical(dict(_library()))


def read_library(data: bytes, named: str) -> Mapping[str, str]:
    """Kept sources. Raises :class:`UsageError` where the bytes are not those that were ``named``."""
    try:
        found = msgspec.json.decode(data, type=dict[str, str])
    except msgspec.DecodeError:
        found = {}
    if digest(found) != named:
        raise UsageError(f"the kept library {named[:12]} is damaged", code="library.damaged")
    return found


def served_beside(modules: Mapping[str, str], library: Mapping[str, str] | None = None) -> dict[str, str]:
    """What an agent with these modules is served, its own included. A module of the same name in its bundle
    comes before ours. ``library``: other sources than the present ones, see :func:`read_library`."""
    ours = _library() if library is None else library
    served = dict(modules)
    roots: set[str] = set()
    while wanted := _imported(served.values()) - roots:
        roots |= wanted
        for name, source in ours.items():
            if name.split(".")[1] in wanted:
                served.setdefault(name, source)
    return served


def uses_library(modules: Mapping[str, str] | None) -> bool:
    """Whether ours are among what an agent is served."""
    ours = _library()
    return any(ours.get(name) == source for name, source in (modules or {}).items())


def _imported(sources: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for source in sources:
        for match in _IMPORT.finditer(source):
            words = {match["root"]} if match["root"] else set(re.findall(r"\w+", match["names"] or ""))
            found |= words & set(_ROOTS)
    return found
