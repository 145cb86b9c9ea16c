"""Print the package's whole copyright file (DEP-5): ``licences.py SITE HEAD INSIDE >copyright``.

SITE is the folder of installed distributions, HEAD what people wrote (``debian/copyright``), INSIDE what is
in the shipped runners (``inside.toml``). Each distribution gets a paragraph with its files, its licence as
SPDX, who holds the copyright, and the words of the licence as it shipped them. Stops with a list, and prints
nothing, when a distribution does not say its licence and ``SPDX`` below does not either, when the words of a
licence are nowhere, or when a file belongs to nobody. Knows nothing of whether a licence suits us.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_string
from email.message import Message
from pathlib import Path

OURS = "runloop"
PREFIX = "usr/lib/runloop/lib/python3.11/site-packages"
SPDX = {
    "agent-client-protocol": "Apache-2.0",
    "backports-tarfile": "MIT",
    "biscuit-python": "Apache-2.0",
    "blake3": "CC0-1.0 OR Apache-2.0",
    "click-default-group": "BSD-3-Clause",
    "cronsim": "BSD-3-Clause",
    "h11": "MIT",
    "immutables": "Apache-2.0 AND PSF-2.0",
    "jaraco-classes": "MIT",
    "jcs": "Apache-2.0",
    "lark": "MIT",
    "linkify-it-py": "MIT",
    "markdown-it-py": "MIT",
    "mcp": "MIT",
    "mcp-types": "MIT",
    "mdit-py-plugins": "MIT",
    "mdurl": "MIT",
    "pluggy": "MIT",
    "pyrage": "MIT",
    "rich": "MIT",
    "ruamel-yaml": "MIT",
    "shellingham": "ISC",
    "sqlite-fts4": "Apache-2.0",
    "sqlite-vec": "MIT OR Apache-2.0",
    "textual": "MIT",
    "uvloop": "MIT OR Apache-2.0",
    "watchfiles": "MIT",
}
"""Read in their licence files: these distributions do not say it in ``License-Expression``."""
COMMON = {
    "Apache-2.0": re.compile(r"Version 2\.0,\s+January\s+2004"),
    "MPL-2.0": re.compile(r"^Mozilla Public License Version 2\.0"),
}
"""Licences whose words every Debian has in /usr/share/common-licenses, and how their whole text begins."""
INSIDE_OTHERS = re.compile(r"Apache License\s+Version 2\.0, January 2004.*?END OF TERMS AND CONDITIONS", re.S)
"""The same words in the middle of a file that has several licences."""
WORDS = re.compile(r"(^|/)(licen[cs]e|copying|notice)[^/]*$", re.I)
HOLDER = re.compile(r"^\W{0,3}Copyright\s+(?:\(c\)|©)?[\s:]*(?P<who>\S.*?)\s*$", re.I | re.M)
NOBODY = re.compile(
    r"<copyright holders>|\[yyyy\]|\[name of|holders be liable|and related rights|licen[cs]e", re.I
)


@dataclass(kw_only=True)
class Distribution:
    """One installed distribution and its files, relative to SITE."""

    name: str
    version: str
    meta: Message
    files: set[str]
    words: dict[str, str] = field(default_factory=dict)
    """Licence file -> its text."""

    @property
    def licence(self) -> str | None:
        """SPDX: what the distribution says, else what was read in it."""
        said = self.meta["License-Expression"]
        return str(said) if said else SPDX.get(self.name)

    def holders(self) -> list[str]:
        """Who holds the copyright, as its licences say; else its authors."""
        found = (match["who"].strip(" .") for text in self.words.values() for match in HOLDER.finditer(text))
        named = dict.fromkeys(one for one in found if not NOBODY.search(one))
        return list(named) or [self._authors()]

    def _authors(self) -> str:
        who = self.meta["Author"] or self.meta["Author-email"] or self.meta["Maintainer-email"]
        where = self.meta["Home-page"] or (self.meta.get_all("Project-URL") or [""])[0].rpartition(" ")[2]
        return str(who or f"the authors of {self.name}" + (f" ({where})" if where else ""))


def normal(name: str) -> str:
    """The name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(site: Path) -> list[Distribution]:
    """Everything that is installed in SITE, by name."""
    return sorted(map(_read, site.glob("*.dist-info")), key=lambda one: one.name)


def _read(info: Path) -> Distribution:
    site = info.parent
    listed = (line.split(",")[0].strip('"') for line in (info / "RECORD").read_text().splitlines())
    files = {path for path in listed if not path.startswith(("../", "/")) and (site / path).is_file()}
    files |= {str(path.relative_to(site)) for path in info.rglob("*") if path.is_file()}
    meta = message_from_string((info / "METADATA").read_text(encoding="utf-8"))
    words = {
        str(path.relative_to(site)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(info.rglob("*"))
        if path.is_file() and WORDS.search(str(path.relative_to(info)))
    }
    return Distribution(
        name=normal(str(meta["Name"])), version=str(meta["Version"]), meta=meta, files=files, words=words
    )


def faults(site: Path, found: Iterable[Distribution]) -> Iterator[str]:
    """Why the file would not be complete."""
    owners: dict[str, str] = {}
    for one in found:
        for path in one.files:
            if path in owners:
                yield f"{path} belongs to {owners[path]} and to {one.name}"
            owners[path] = one.name
        if one.name == OURS:
            continue
        if one.licence is None:
            yield f"{one.name} {one.version} does not say its licence; read it, and add it to SPDX here"
        elif not one.words and not re.search("|".join(COMMON), one.licence):
            yield f"{one.name} {one.version} is under {one.licence} and ships no words of it"
    for path in site.rglob("*"):
        relative = str(path.relative_to(site))
        # What the rules compiled there is ours, and no wheel's.
        if path.is_file() and relative not in owners and not relative.startswith("runloopd/bus/"):
            yield f"{relative} belongs to no distribution"


def _patterns(files: set[str], every: set[str], below: str = "") -> Iterator[str]:
    """The fewest patterns that match ``files`` and no other of ``every``."""
    level: dict[str, set[str]] = {}
    for path in files:
        level.setdefault(path[len(below) :].partition("/")[0], set()).add(path)
    for name, inside in sorted(level.items()):
        if inside == {f"{below}{name}"}:
            yield f"{below}{name}"
        elif inside == {path for path in every if path.startswith(f"{below}{name}/")}:
            yield f"{below}{name}/*"
        else:
            yield from _patterns(inside, every, f"{below}{name}/")


def _folded(text: str) -> list[str]:
    """Words as a field of several lines has them."""
    return [f" {line.rstrip()}" if line.strip() else " ." for line in text.expandtabs().strip().splitlines()]


def _short(spdx: str) -> str:
    """SPDX as DEP-5 says it."""
    return (
        re.sub(r" WITH (\S+)", r" with \1 exception", spdx).replace(" OR ", " or ").replace(" AND ", " and ")
    )


def _words(one: Distribution) -> Iterator[str]:
    for path, text in one.words.items():
        common = next((name for name, begin in COMMON.items() if begin.search(text[:400])), None)
        exception = text.find("LLVM Exceptions to")
        yield from (" .", f" {path.rpartition('/')[2]}:", " .")
        if common:
            yield f" the text of /usr/share/common-licenses/{common}"
            if exception >= 0:
                yield from (" .", *_folded(text[exception:]))
        else:
            yield from _folded(INSIDE_OTHERS.sub("/usr/share/common-licenses/Apache-2.0", text))
    if not one.words:
        for common in (name for name in COMMON if name in str(one.licence)):
            yield from (
                " .",
                f" /usr/share/common-licenses/{common} is its text; the distribution ships none.",
            )


def _paragraph(one: Distribution, every: set[str]) -> str:
    files = [f"{PREFIX}/{pattern}" for pattern in _patterns(one.files, every)]
    lines = [
        "Files: " + "\n ".join(files),
        "Copyright: " + "\n ".join(one.holders()),
        f"License: {_short(str(one.licence))}",
        f" {one.meta['Name']} {one.version}.",
        *_words(one),
    ]
    return "\n".join(lines)


def _runner(runner: str, inside: list[Mapping[str, str]]) -> str:
    licences = sorted({part for one in inside for part in re.split(r" AND | OR ", one["licence"])})
    lines = [
        f"Files: {PREFIX}/runloop/_shipped/{runner}/*",
        "Copyright: 2026 The Runloop engineers",
        *(f" {one['copyright']}" for one in inside),
        f"License: {_short(' and '.join(licences))}",
        " The component runner.wasm.xz has inside, beside code of this project:",
        *(f" {one['name']} {one.get('version', '')}".rstrip() + f": {one['licence']}" for one in inside),
        " .",
        " The words of each licence are in its own paragraph below.",
    ]
    return "\n".join(lines)


def main(site: Path, head: Path, inside: Path) -> int:
    found = distributions(site)
    wrong = list(faults(site, found))
    if wrong:
        print("licences: the copyright file would not be complete:", *wrong, sep="\n  ", file=sys.stderr)
        return 1
    written, _, texts = head.read_text(encoding="utf-8").partition("\n\nLicense: ")
    every = {path for one in found for path in one.files}
    rows = tomllib.loads(inside.read_text(encoding="utf-8"))["component"]
    runners = dict.fromkeys(row["runner"] for row in rows)
    paragraphs = [
        written.strip(),
        *(_runner(runner, [row for row in rows if row["runner"] == runner]) for runner in runners),
        *(_paragraph(one, every) for one in found if one.name != OURS),
        f"License: {texts.strip()}",
    ]
    print("\n\n".join(paragraphs))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
