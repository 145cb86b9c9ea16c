"""The command that compares us with others, on what is always there: ours."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.bench import bench_peers, bench_stores
from tests.bench.load import brokers, generator, wire

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no cc: apt install gcc libc6-dev")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built stays away from the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.requirement("I4.figures.2")
@pytest.mark.parametrize("native", ["0", "1"])
def test_our_bus_carries_every_pattern_whole_and_in_order(native: str, tmp_path: Path) -> None:
    if native == "1" and not brokers.native_step():
        pytest.skip("the compiled step of the bus is not built: apt install gcc python3-dev")
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "tests.bench.load.serve", os.fspath(place / "s")]
    env = {"RUNLOOP_NATIVE": native, "PYTHONPATH": brokers.PYTHONPATH}
    with brokers.run(argv, folder=tmp_path, env=env) as process:
        ours = wire.Rmp(place / "s")
        for pattern in generator.PATTERNS:
            for size in (64, 65_536):
                result = generator.measure(
                    ours, pattern, size, pids=[process.pid], warm_s=0.02, measure_s=0.05
                )
                assert result["per_s"] > 0
    last = (tmp_path / "output").read_text().splitlines()[-1]
    assert json.loads(last)["dropped"] == {}


def test_who_is_not_installed_is_named_and_the_rest_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(Path(shutil.which("cc") or "").parent))
    monkeypatch.setattr(brokers.shutil, "which", lambda name, path=None: None if "redis" in name else name)
    argv = ["--only", "ours asyncio,redis", "--part", "brokers", "--rounds", "1", "--measure", "0.02"]
    assert bench_peers.main([*argv, "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == {"redis": "redis-server is missing: apt install redis-server"}
    assert told["faults"] == []
    assert told["brokers"]["ours asyncio"]["64 B 1→8"][0]["per_s"] > 0


def test_programs_that_use_our_client_are_measured_without_anybody_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--only", "ours asyncio", "--part", "clients", "--rounds", "1", "--quick", "--json"]
    assert bench_peers.main(argv) == 0
    told = json.loads(capsys.readouterr().out)["clients"]
    assert {"ours, blocking, receipts", "ours, asyncio, receipts"} <= told.keys()
    assert all(
        sample["p50_us"] > 0 and sample["per_s"] > 0 for samples in told.values() for sample in samples
    )


def test_our_ledger_is_measured_at_both_durabilities(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ["--only", "ours", "--rounds", "1", "--seconds", "0.05", "--dir", os.fspath(tmp_path), "--json"]
    assert bench_stores.main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == {}
    assert len(told["rows"]) == 8
    assert all(sample["per_s"] > 0 and sample["bytes"] > 0 for row in told["rows"].values() for sample in row)
