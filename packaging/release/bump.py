"""Write a release's version everywhere it stands, or check that it stands there.

    python3 packaging/release/bump.py 0.2.0             # today, UTC
    python3 packaging/release/bump.py --check [VERSION [DATE]]

Knows: the places of the version and their forms. ``--check`` without arguments insists that all places agree;
with VERSION that it is this one and released, with DATE that it is dated so. Does not know: git, or how a
release is built. Writes nothing unless every place can be written.

Versions are X.Y.Z and only rise. What Debian's package is called adds its release: X.Y.Z~deb12u1.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from email.utils import format_datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEBIAN = "~deb12u1"
PYPROJECT = "pyproject.toml"
MODULE = "sdk/python/runloop/__init__.py"
DEBIAN_CHANGELOG = "packaging/deb/debian/changelog"
CHANGELOG = "CHANGELOG.md"
MANUAL = "packaging/man/man1/rlp.1"
"""One page for all: they are made together, by packaging/man/generate.py."""

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)\Z")
_PLACES = {
    PYPROJECT: re.compile(r'^\[project\]\n(?:[^\[]*\n)?version = "(?P<version>[^"]*)"$', re.MULTILINE),
    MODULE: re.compile(r'^__version__ = "(?P<version>[^"]*)"$', re.MULTILINE),
    DEBIAN_CHANGELOG: re.compile(r"\Arunloop \((?P<version>[^)]*)\) ", re.MULTILINE),
    MANUAL: re.compile(r'^\.TH RLP 1 "" "Runloop (?P<version>[^"]*)"', re.MULTILINE),
}
_HEADING = re.compile(r"^## (\d+\.\d+\.\d+) — (\d{4}-\d\d-\d\d)$", re.MULTILINE)
_UNRELEASED = "## Unreleased\n"
_TRAILER = re.compile(r"^ -- (.*>)  .*$", re.MULTILINE)


class BumpError(Exception):
    """What is wrong, and what to do."""


def found(root: Path) -> dict[str, str]:
    """Place -> the version that stands there, in the project's own form."""
    versions = {}
    for name, pattern in _PLACES.items():
        match = pattern.search((root / name).read_text(encoding="utf-8"))
        if match is None:
            raise BumpError(f"{name} says no version where one is looked for")
        versions[name] = match["version"].removesuffix(DEBIAN)
    return versions


def check(root: Path, version: str | None = None, date: str | None = None) -> str:
    """The version all places agree on. ``version``: insist on it, and that the changelog has it as released;
    ``date``: on that day, in both changelogs. Raises :class:`BumpError`."""
    versions = found(root)
    if len(set(versions.values())) != 1:
        told = ", ".join(f"{name} says {one}" for name, one in versions.items())
        raise BumpError(f"the version stands differently: {told}; run packaging/release/bump.py")
    agreed = versions[PYPROJECT]
    released = _HEADING.findall((root / CHANGELOG).read_text(encoding="utf-8"))
    newest = max((_number(one) for one, _ in released), default=(0, 0, 0))
    if newest > _number(agreed):
        raise BumpError(f"{CHANGELOG} has a later release than {agreed}")
    if version is None:
        return agreed
    if agreed != version:
        raise BumpError(f"this tree is {agreed}, not {version}; run packaging/release/bump.py {version}")
    days = dict(released)
    if version not in days:
        raise BumpError(f"{CHANGELOG} has no heading '## {version} — <date>'; run packaging/release/bump.py")
    if date is not None and days[version] != date:
        raise BumpError(f"{CHANGELOG} dates {version} {days[version]}, not {date}; run bump.py {version}")
    top = (root / DEBIAN_CHANGELOG).read_text(encoding="utf-8").split("\nrunloop (")[0]
    moment = datetime.date.fromisoformat(days[version]).strftime("%a, %d %b %Y")
    if f"  {moment} " not in top:
        raise BumpError(f"{DEBIAN_CHANGELOG} does not date {version} {days[version]}; run bump.py {version}")
    return agreed


def bump(root: Path, version: str, date: str) -> None:
    """Write ``version`` everywhere. Raises :class:`BumpError`, before anything is written."""
    day = datetime.date.fromisoformat(date)
    before = check(root)
    if _number(version) < _number(before):
        raise BumpError(f"{version} is before {before}; versions only rise")
    new = {
        name: _replaced(root, name, version + (DEBIAN if name == DEBIAN_CHANGELOG else ""))
        for name in _PLACES
    }
    new[DEBIAN_CHANGELOG] = _stanza(root, version, before, day)
    new[CHANGELOG] = _headed(root, version, date)
    del new[MANUAL]  # made from the others
    for name, text in new.items():
        (root / name).write_text(text, encoding="utf-8")


def _replaced(root: Path, name: str, version: str) -> str:
    text = (root / name).read_text(encoding="utf-8")
    match = _PLACES[name].search(text)
    assert match is not None, "it was found a moment ago"
    return text[: match.start("version")] + version + text[match.end("version") :]


def _stanza(root: Path, version: str, before: str, day: datetime.date) -> str:
    """Debian's changelog with this version on top, dated at noon: the time of every packed file."""
    text = (root / DEBIAN_CHANGELOG).read_text(encoding="utf-8")
    trailer = _TRAILER.search(text)
    if trailer is None:
        raise BumpError(f"{DEBIAN_CHANGELOG} has no line ' -- Name <mail>  date'")
    noon = datetime.datetime.combine(day, datetime.time(12), datetime.UTC)
    dated = f" -- {trailer[1]}  {format_datetime(noon)}"
    if version == before:
        return text[: trailer.start()] + dated + text[trailer.end() :]
    head = f"runloop ({version}{DEBIAN}) bookworm; urgency=medium"
    return f"{head}\n\n  * Version {version}; see CHANGELOG.md.\n\n{dated}\n\n{text}"


def _headed(root: Path, version: str, date: str) -> str:
    """The changelog in which what was not released yet is this version."""
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    heading = f"## {version} — {date}"
    if version in dict(_HEADING.findall(text)):
        return re.sub(rf"^## {re.escape(version)} — .*$", heading, text, flags=re.MULTILINE)
    before, mark, after = text.partition(_UNRELEASED)
    if not mark or not after.lstrip().startswith("- "):
        raise BumpError(f"{CHANGELOG} has nothing below '## Unreleased': say what a user notices")
    return f"{before}{_UNRELEASED}\n{heading}\n{after}"


def _number(version: str) -> tuple[int, ...]:
    match = _VERSION.match(version)
    if match is None:
        raise BumpError(f"{version!r} is no version; write X.Y.Z")
    return tuple(map(int, match.groups()))


def main(words: list[str]) -> int:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        if words[:1] == ["--check"] and len(words) <= 3:
            print(check(ROOT, *words[1:]))
        elif len(words) in (1, 2) and not words[0].startswith("-"):
            bump(ROOT, words[0], words[1] if words[1:] else today)
            python = ROOT / ".venv" / "bin" / "python"
            subprocess.run(
                [python if python.exists() else sys.executable, "packaging/man/generate.py"],
                cwd=ROOT,
                check=True,
            )
            print(check(ROOT, words[0]))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (BumpError, ValueError, OSError) as error:
        print(f"bump: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
