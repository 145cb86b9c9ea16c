"""What can be run from here: openings and the ports of installed agents, as files tell.

Knows: the directories, in order, the first one winning, as in the daemon. Does not know: trust; the daemon's
registry is the judge of agents and refuses what it must.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlp.session import Session
from runloop.errors import NotFoundError, RunloopError

if TYPE_CHECKING:
    from openings.definition import Opening, PortTable
    from runloop.bundle.manifest import Manifest

__all__ = ["Installed", "Listing", "agents", "installed", "manifests", "openings", "routable"]

_INSTALLED = "SELECT name, variant, bundle, dev FROM agents WHERE state = 'current' ORDER BY name, variant"
_MAX_INSTALLED = 10_000


def openings(session: Session) -> Iterator[tuple[Path, Opening | None]]:
    """Every opening's file with the opening, or with None where it does not load (``rlp plan`` says why)."""
    from openings.load import catalogue, read

    for path in catalogue(session.openings_dirs).values():
        try:
            yield path, read(path)
        except RunloopError as error:
            session.console.detail(f"passed over {path}: {error.message}")
            yield path, None


class Listing(NamedTuple):
    """What the router wants to know of an opening."""

    name: str
    goals: list[str]
    params: dict[str, None]


def routable(session: Session) -> list[Listing]:
    """Every opening that loads, for the router.

    Reading YAML costs most of a prompt's time, so what was read is kept beside the compiled components, by
    path, time and size of the file. Nothing is decided by it but a route: a run reads and checks the file
    itself.
    """
    import json

    store = session.home.cache_dir / "openings.json"
    try:
        read_back = json.loads(store.read_bytes())
    except (OSError, ValueError):
        read_back = {}
    kept: dict[str, Any] = read_back if isinstance(read_back, dict) else {}
    found: dict[str, Listing] = {}
    for path in _files(session):
        facts = path.stat()
        key = f"{path}|{facts.st_mtime_ns}|{facts.st_size}"
        found[key] = _listing_of(kept.get(key)) or _listing(session, path)
    if list(found) != list(kept):
        _keep(store, json.dumps({key: [one.name, one.goals, [*one.params]] for key, one in found.items()}))
    return [listing for listing in found.values() if listing.name]


def _files(session: Session) -> Iterator[Path]:
    """As ``openings.load.catalogue``, without importing a YAML reader."""
    seen: set[str] = set()
    for directory in session.openings_dirs:
        found = [path for suffix in ("yaml", "yml", "opening") for path in directory.glob(f"*.{suffix}")]
        for path in sorted(found, key=lambda path: path.stem):
            if path.stem not in seen and path.is_file():
                seen.add(path.stem)
                yield path


def _listing_of(entry: Any) -> Listing | None:
    """A listing as it was kept; None for anything else."""
    match entry:
        case [str(name), [*goals], [*params]] if all(isinstance(word, str) for word in (*goals, *params)):
            return Listing(name, goals, dict.fromkeys(params))
    return None


def _listing(session: Session, path: Path) -> Listing:
    """What a file says; an empty name for one that does not load."""
    from openings.load import read

    try:
        opening = read(path)
    except RunloopError as error:
        session.console.detail(f"passed over {path}: {error.message}")
        return Listing("", [], {})
    return Listing(opening.name, list(opening.goals), dict.fromkeys(opening.params))


def _keep(store: Path, text: str) -> None:
    """Write the listings whole or not at all; a home that cannot be written to only costs time."""
    import os
    import tempfile

    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, fresh = tempfile.mkstemp(dir=store.parent, prefix=".openings-")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, store)  # noqa: PTH105
    except OSError:
        return


class Installed(NamedTuple):
    """An agent that was installed, as the views tell."""

    name: str
    variant: str
    bundle: str
    """Name of its folder among the kept bundles."""
    dev: bool
    """Signed with this home's development key only."""


def installed(session: Session) -> list[Installed]:
    """What is installed; nothing where there are no views yet (a daemon makes them at its start)."""
    from contextlib import closing

    from pog.query import Knowledge

    views = session.home.views_db
    if not views.exists():
        return []
    try:
        with closing(Knowledge(views)) as knowledge:
            found = knowledge.query(_INSTALLED, [], _MAX_INSTALLED, raw=True)
    except RunloopError as error:
        session.console.detail(f"passed over {views}: {error.message}")
        return []
    return [Installed(row["name"], row["variant"], row["bundle"], bool(row["dev"])) for row in found.rows]


def manifests(session: Session) -> Iterator[tuple[Path, Manifest | RunloopError]]:
    """Every agent's directory and manifest, or what is wrong with it.

    Shipped names and installed ones are never another folder's, as in the daemon's registry.
    """
    from runloop.config import shipped

    folders = [file.parent for place in session.agents_dirs for file in sorted(place.glob("*/manifest.toml"))]
    here = installed(session)
    kept = session.home.kept_dir
    ours = {_name(folder) for folder in folders if folder.parent == shipped("agents")}
    taken = {one.name for one in here} - ours
    seen: set[tuple[str, str, str]] = set()
    for folder in (*(kept / one.bundle for one in here if one.name not in ours), *folders):
        found = _manifest(folder)
        if isinstance(found, RunloopError):
            yield folder, found
            continue
        key = (found.name, found.variant, found.version)
        if key not in seen and (folder.parent == kept or found.name not in taken):
            seen.add(key)
            yield folder, found


def _manifest(folder: Path) -> Manifest | RunloopError:
    from runloop.bundle.manifest import parse_manifest

    file = folder / "manifest.toml"
    try:
        return parse_manifest(file.read_bytes(), origin=str(file))
    except RunloopError as error:
        return error
    except OSError as error:
        return NotFoundError(f"{file} cannot be read: {error.strerror}")


def _name(folder: Path) -> str | None:
    found = _manifest(folder)
    return None if isinstance(found, RunloopError) else found.name


def agents(session: Session) -> dict[str, PortTable]:
    """Ports by what a node's ``use`` may say: ``agent:<name>``, ``agent:<name>@<variant or version>``."""
    from openings.definition import PortSpec, PortTable

    found: dict[str, PortTable] = {}
    for _, manifest in manifests(session):
        if isinstance(manifest, RunloopError):
            continue
        table = PortTable(
            in_={n: PortSpec(type=p.type, required=p.required) for n, p in manifest.inputs.items()},
            out={n: PortSpec(type=p.type, required=p.required) for n, p in manifest.outputs.items()},
        )
        stem = f"agent:{manifest.name}"
        if manifest.variant == "default":
            found.setdefault(stem, table)
            found.setdefault(f"{stem}@{manifest.version}", table)
        found.setdefault(f"{stem}@{manifest.variant}", table)
    return found
