"""The copyright file names every file of the package, or there is no package."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.deb.conftest import DEBIAN

Step = Callable[[str], ModuleType]
ROOT = DEBIAN.parents[2]
MIT = "MIT License\n\nCopyright (c) 2020 Ada Example <ada@example.org>\n\nPermission is hereby granted"
APACHE = "\n  Apache License\n  Version 2.0, January 2004\n" + "words\n" * 200


def dist(site: Path, name: str, files: Mapping[str, str], meta: str = "", **words: str) -> Path:
    """An installed distribution: its files, its metadata, its licence files (dots as ``_``)."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    (info / "licenses").mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n{meta}\n")
    for file, text in words.items():
        (info / "licenses" / file).write_text(text)
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    kept = [f"{file},sha256=x,1" for file in files]
    (info / "RECORD").write_text("\n".join([*kept, f"{info.name}/METADATA,,", "../../bin/tool,,"]) + "\n")
    return info


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two distributions that share a folder, and ours."""
    place = tmp_path / "site"
    dist(place, "one", {"one/a.py": "", "shared/one.py": ""}, "License-Expression: MIT", LICENSE=MIT)
    dist(
        place,
        "two-b",
        {"two.py": "", "shared/two/c.py": "", "shared/two/d.py": ""},
        "License-Expression: Apache-2.0 OR MIT\nAuthor: Bo",
        COPYING=APACHE,
    )
    dist(place, "runloop", {"runloop/__init__.py": "", "runloopd/x.py": ""})
    return place


def made(step: Step, site: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = step("licences").main(site, DEBIAN / "copyright", DEBIAN / "inside.toml")
    out, err = capsys.readouterr()
    return code, out, err


def paragraphs(text: str) -> list[dict[str, str]]:
    """DEP-5 as its readers see it: fields, continued by lines that begin with a space."""
    found = []
    for block in text.strip().split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith(" "):
                fields[name] += f"\n{line}"
            else:
                name, colon, value = line.partition(": ")
                assert colon, line
                assert name not in fields, name
                fields[name] = value
        found.append(fields)
    return found


@pytest.mark.requirement("I8.licences.1")
def test_every_distribution_has_a_paragraph_with_its_files_holder_and_words(
    step: Step, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = made(step, site, capsys)
    assert code == 0
    told = paragraphs(out)
    stem = step("licences").PREFIX
    by_files = {one["Files"]: one for one in told if "Files" in one}
    one = by_files["\n ".join(f"{stem}/{name}" for name in ("one/*", "one-1.0.dist-info/*", "shared/one.py"))]
    assert one["Copyright"] == "2020 Ada Example <ada@example.org>"
    assert one["License"].startswith("MIT\n")
    assert "Permission is hereby granted" in one["License"]
    wanted = ("shared/two/*", "two.py", "two_b-1.0.dist-info/*")
    two = by_files["\n ".join(f"{stem}/{name}" for name in wanted)]
    assert two["Copyright"] == "Bo"
    assert two["License"].startswith("Apache-2.0 or MIT\n")
    assert "/usr/share/common-licenses/Apache-2.0" in two["License"]
    assert "words\n words" not in out, "every Debian has that text"
    assert not any("runloop-1.0" in files for files in by_files), "ours are the first paragraph's"


def test_what_every_debian_has_is_left_out_of_the_middle_of_a_file_too(
    step: Step, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = f"Take one of the two.\n{'free ' * 200}\n{APACHE}END OF TERMS AND CONDITIONS\nthe end\n"
    dist(site, "three", {"three.py": ""}, "License-Expression: CC0-1.0 OR Apache-2.0", LICENSE=both)
    out = made(step, site, capsys)[1]
    assert "words\n words" not in out
    assert "\n /usr/share/common-licenses/Apache-2.0\n the end" in out.replace("   /usr", " /usr")


@pytest.mark.requirement("I8.licences.1")
def test_each_licence_that_is_named_without_its_words_has_them_below(
    step: Step, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = paragraphs(made(step, site, capsys)[1])
    alone = {one["License"].partition("\n")[0] for one in told if set(one) == {"License"}}
    runners = [one["License"] for one in told if "_shipped/runner" in one.get("Files", "")]
    assert len(runners) == 2
    for said in runners:
        names = re.split(r" and | or ", said.partition("\n")[0])
        assert set(names) <= alone


@pytest.mark.requirement("I8.licences.1")
@pytest.mark.parametrize("wrong", ["no licence", "no words", "nobody's file", "two owners"])
def test_a_file_that_would_not_be_complete_is_not_written(
    step: Step, site: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    match wrong:
        case "no licence":
            dist(site, "three", {"three.py": ""}, LICENSE=MIT)
        case "no words":
            dist(site, "three", {"three.py": ""}, "License-Expression: MIT")
        case "nobody's file":
            (site / "stray.so").touch()
        case _:
            dist(site, "three", {"two.py": ""}, "License-Expression: MIT", LICENSE=MIT)
    code, out, err = made(step, site, capsys)
    assert (code, out) == (1, "")
    said = {"no licence": "three 1.0 does not say", "no words": "ships no words", "two owners": "to two-b"}
    assert said.get(wrong, "stray.so belongs to no distribution") in err


@pytest.mark.requirement("I8.licences.1")
def test_what_is_locked_says_its_licence_or_we_read_it(step: Step) -> None:
    """The build would stop; this tells it when the lock is made anew."""
    licences, sbom = step("licences"), step("sbom")
    lock = sbom.locked((ROOT / "requirements" / "deb.txt").read_text(encoding="utf-8"))
    silent = []
    for name in lock.keys() - {"pip", "tzdata"}:
        try:
            meta = importlib.metadata.distribution(name).metadata
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that this environment does not have
        if not meta["License-Expression"] and name not in licences.SPDX:
            silent.append(name)
    assert silent == []
    assert licences.SPDX.keys() <= lock.keys(), "nobody needs these any more"


def test_the_runners_of_the_table_are_those_that_are_shipped(step: Step) -> None:
    import tomllib

    from runloop.bundle.runner import RUNNERS

    rows = tomllib.loads((DEBIAN / "inside.toml").read_text(encoding="utf-8"))["component"]
    assert {row["runner"] for row in rows} == set(RUNNERS.values())
    for made_by, pin in (("componentize-py", "runner"), ("componentize-qjs", "js/runner")):
        told = tomllib.loads((ROOT / "sdk" / pin / "runner.toml").read_text(encoding="utf-8"))
        assert told[made_by.replace("-", "_")] == next(r["version"] for r in rows if r["name"] == made_by)
