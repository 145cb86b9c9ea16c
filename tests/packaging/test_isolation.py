"""What others plant is not loaded by the package's programs: its real environment, laid out in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.tools import PACKAGING, ROOT, run

DEBIANS = Path("/usr/bin/python3.11")
PRODUCT = ("runloopd", "rlp", "agtop", "pog", "openings", "sdk/python/runloop")
PROGRAMS = ("rlp", "agtop", "runloopd")


@dataclass(frozen=True)
class Layout:
    """The package's files below a folder instead of below ``/``."""

    root: Path

    @property
    def libraries(self) -> Path:
        return self.root / "usr/lib/runloop/lib/python3.11/site-packages"

    def finish(self) -> subprocess.CompletedProcess[str]:
        """As debian/rules does."""
        return run(sys.executable, PACKAGING / "deb/debian/environment.py", self.root / "usr/lib/runloop")

    def command(self, program: str) -> list[str]:
        """How the kernel starts a launcher: by its first line, below our folder."""
        launcher = self.root / "usr/bin" / program
        interpreter, *options = launcher.read_text().splitlines()[0].removeprefix("#!").split()
        assert interpreter == "/usr/lib/runloop/bin/python3"
        return [f"{self.root}{interpreter}", *options, str(launcher)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    if not DEBIANS.exists() or Path(sys.executable).resolve() != DEBIANS.resolve():
        pytest.skip(
            "these tests run on another Python than Debian's: apt install python3.11-venv, make setup"
        )
    made = Layout(tmp_path / "root")
    made.libraries.mkdir(parents=True)
    ours = {Path(name).name for name in PRODUCT}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and entry.name not in ours:
            (made.libraries / entry.name).symlink_to(entry)
    for name in PRODUCT:
        (made.libraries / Path(name).name).symlink_to(ROOT / name)
    return made


@dataclass(frozen=True)
class Planted:
    """Code in every place that Python looks into by itself, or is told to."""

    folder: Path
    mark: Path
    env: dict[str, str]

    @classmethod
    def made(cls, folder: Path) -> Planted:
        mark, home = folder / "it-ran", folder / "home"
        code = f"open({str(mark)!r}, 'a').write(__name__ + chr(10))\n"
        path = folder / "path"
        user = home / ".local/lib/python3.11/site-packages"
        for place in (path, user):
            place.mkdir(parents=True)
            for module in ("sitecustomize", "usercustomize", "msgspec", "runloop", "rlp", "structlog"):
                (place / f"{module}.py").write_text(code)
            (place / "x.pth").write_text(f"import os; {code}")
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNLOOP"))
        }
        env |= {"HOME": str(home), "PYTHONPATH": str(path), "PYTHONSTARTUP": str(path / "rlp.py")}
        env |= {"PYTHONUSERBASE": str(home / ".local"), "RUNLOOP_HOME": str(folder / "state")}
        return cls(path, mark, env)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Among the planted files, told of them by every variable."""
        return subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.mark.requirement("M6")
def test_no_planted_module_pth_or_variable_reaches_a_program_of_the_package(
    layout: Layout, tmp_path: Path
) -> None:
    assert layout.finish().returncode == 0
    planted = Planted.made(tmp_path / "planted")
    for program in PROGRAMS:
        done = planted.run(*layout.command(program), "--version")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{program} ")
    # What the daemon starts, it starts as its own interpreter with -I: the same libraries, nothing else.
    interpreter = layout.command("rlp")[0]
    done = planted.run(
        interpreter,
        "-I",
        "-c",
        "import sys, msgspec, runloopd.daemon, rlp.app; print(*sys.path, msgspec.__file__, sep=chr(10))",
    )
    *path, module = done.stdout.split()
    assert str(layout.libraries) in path
    assert module.startswith(str(layout.libraries))
    assert not [
        one for one in path if "dist-packages" in one or "/.local/" in one or str(tmp_path / "planted") in one
    ]
    assert not planted.mark.exists()
    # The trap works: the same interpreter, started as most programs are, runs what was planted.
    planted.run(interpreter, "-c", "pass")
    assert planted.mark.exists()


@pytest.mark.requirement("M6")
@pytest.mark.parametrize("name", ["distutils-precedence.pth", "sitecustomize.py", "usercustomize.py"])
def test_a_library_that_would_run_at_every_start_ends_the_build(layout: Layout, name: str) -> None:
    (layout.libraries / name).write_text("import os\n")
    done = layout.finish()
    assert done.returncode == 1
    assert name in done.stderr
    assert not (layout.root / "usr/bin").exists()
