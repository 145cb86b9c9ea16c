"""``rlp doctor`` beside the package's service: what its unit takes away on purpose is no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlp.commands import doctor
from runloop import __version__, config
from runloopd.broker.tools import layers
from tests.unit.rlp.conftest import Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin

THIN = {"seccomp": True, "network_namespace": False, "ipc_namespace": False}


def rows(daemon: DaemonTwin, rlp: Rlp, holding: dict[str, bool]) -> dict[str, dict[str, Any]]:
    programs = [{"name": "namespaces", "holds": False, "found": "not permitted"}]
    status = {"version": __version__, "pid": 1, "layers": holding, "programs": programs}
    daemon.methods["status"] = lambda: status
    return {row["name"]: row for row in rlp("doctor", "--json").lines}


def test_the_service_is_sound_without_what_its_unit_forbids(
    daemon: DaemonTwin, rlp: Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = rows(daemon, rlp, THIN)
    assert (theirs["sandbox"]["state"], theirs["programs"]["state"]) == ("warning", "warning")
    monkeypatch.setattr(doctor, "SYSTEM_HOME", daemon.home)
    ours = rows(daemon, rlp, THIN)
    assert (ours["sandbox"]["state"], ours["programs"]["state"]) == ("ok", "ok")
    assert "seccomp; the service's unit allows no namespaces" in ours["sandbox"]["found"]
    assert "none is run" in ours["programs"]["found"]
    lacking = rows(daemon, rlp, {**THIN, "seccomp": False})
    assert lacking["sandbox"]["state"] == "warning", "what the unit does not forbid is missed here too"


def test_the_operators_file_is_named_where_it_says_anything(
    rlp: Rlp, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc.toml"
    system.write_text("[quotas]\nmails = 3\n")
    assert config.load.__kwdefaults__ is not None
    monkeypatch.setitem(config.load.__kwdefaults__, "system_file", system)
    row = next(row for row in rlp("doctor", "--json").lines if row["name"] == "config")
    assert (row["state"], row["found"]) == ("ok", f"1 set by {system}")


def test_a_bubblewrap_that_does_not_start_is_not_called_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under the unit: it knows its version, and dies of /proc before it says anything else."""
    program = tmp_path / "bwrap"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo bwrap 9\necho "no overflowuid" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(layers, "bubblewrap", lambda: str(program))
    found = layers._bubblewrap()
    assert not found.holds
    assert "no overflowuid" in found.found
    assert "lacks" not in found.found
