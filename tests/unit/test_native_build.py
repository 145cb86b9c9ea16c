"""The optional compiled step and the optional event loop: there, absent, forbidden, insisted on."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runloop.errors import UsageError
from runloopd.__main__ import _loop_factory

ROOT = Path(__file__).parents[2]
COMPILES = shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with the source alone."""
    place = tmp_path / "runloopd" / "bus"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "runloopd" / "bus" / "_gather.c", place)
    return tmp_path


def hook_module() -> ModuleType:
    pytest.importorskip("hatchling", reason="requirements/build.txt")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(tree: Path) -> dict[str, Any]:
    """What the hook tells hatchling."""
    data: dict[str, Any] = {"artifacts": [], "pure_python": True}
    hook_module().NativeStep(str(tree), {}, None, None, "", "wheel").initialize("standard", data)
    return data


@pytest.mark.skipif(not COMPILES, reason="apt install gcc libc6-dev python3-dev")
def test_the_step_is_built_for_every_python_from_3_11_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNLOOP_NATIVE", "1")
    data = built(tree)
    assert (data["pure_python"], data["tag"].split("-")[:2]) == (False, ["cp311", "abi3"])
    (artifact,) = data["artifacts"]
    spec = importlib.util.spec_from_file_location("runloopd.bus._gather", tree / artifact.lstrip("/"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.Seen(4, 30, bytes(16))) == 0


@pytest.mark.requirement("I4.road.3")
def test_without_a_compiler_the_wheel_is_pure_python_and_nothing_old_stays(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tree / "runloopd" / "bus" / "_gather.abi3.so"
    old.write_bytes(b"of an older source")
    monkeypatch.delenv("RUNLOOP_NATIVE", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tree))
    assert built(tree) == {"artifacts": [], "pure_python": True}
    assert not old.exists()
    assert "no C compiler; apt install gcc" in capsys.readouterr().err
    monkeypatch.setenv("RUNLOOP_NATIVE", "1")
    with pytest.raises(RuntimeError, match="no C compiler"):
        built(tree)


def test_a_source_that_does_not_compile_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not COMPILES:
        pytest.skip("apt install gcc libc6-dev python3-dev")
    (tree / "runloopd" / "bus" / "_gather.c").write_text("no C at all")
    monkeypatch.setenv("RUNLOOP_NATIVE", "1")
    with pytest.raises(RuntimeError, match="does not compile"):
        built(tree)
    assert [path.name for path in (tree / "runloopd" / "bus").iterdir()] == ["_gather.c"]


def test_the_step_can_be_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNLOOP_NATIVE", "0")
    assert built(tree) == {"artifacts": [], "pure_python": True}


def test_the_daemon_takes_uvloop_where_it_is_and_is_not_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _loop_factory("asyncio") is None
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert _loop_factory(None) is None
    with pytest.raises(UsageError, match="not installed"):
        _loop_factory("uvloop")
    monkeypatch.delitem(sys.modules, "uvloop")
    pytest.importorskip("uvloop", reason="pip install 'runloop[fast]'")
    factory = _loop_factory(None)
    assert factory is not None
    loop = factory()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert type(loop).__module__ == "uvloop"
    loop.close()
