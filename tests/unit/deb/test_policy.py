"""The policy that the package puts into /etc/runloop: what it says is what holds anyhow, and it binds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runloop.config import RULES, Config, _rule, _widens, load

SHIPPED = Path(__file__).parents[3] / "packaging" / "config" / "config.toml"
TEXT = SHIPPED.read_text(encoding="utf-8")
OFFERED = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
WIDER: dict[str, Any] = {
    "runtime.run_memory_bytes": 8_589_934_593,
    "runtime.run_processes": 4_097,
    "runtime.run_cpu_weight": 101,
    "security.undo_window_ms": 0,
    "security.approval_expiry_ms": 604_800_001,
    "bus.durable_bytes": 1_073_741_825,
    "kb.synchronous": "NORMAL",
    "quotas.mails": 11,
    "breaker.failures": 9,
    "breaker.window_ms": 599_999,
    "scheduler.day_micro_usd": 1_000_001,
    "scheduler.run_micro_usd": 50_001,
    "scheduler.max_runs": 33,
    "scheduler.watch_hops": 9,
}
"""Each rule that holds as the file is shipped, and a value that is wider."""


def keys(text: str) -> dict[str, Any]:
    """Dotted key -> value of a TOML text; a file cannot name an agent, so there are two levels."""
    tables = {name: table for name, table in tomllib.loads(text).items() if isinstance(table, dict)}
    return {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}


def read(tmp_path: Path, text: str = TEXT, environ: dict[str, str] | None = None) -> Config:
    system = tmp_path / "system.toml"
    system.write_text(text, encoding="utf-8")
    return load(home=tmp_path / "home", environ=environ or {}, system_file=system)


@pytest.mark.requirement("I8.policy.1")
def test_a_machine_with_the_shipped_policy_behaves_as_one_without(tmp_path: Path) -> None:
    told = read(tmp_path)
    assert told.flat() == Config().flat()
    assert not told.warnings
    assert {key for key, origin in told.origins.items() if origin.layer == "system"} == set(WIDER)


@pytest.mark.requirement("I8.policy.1")
def test_each_rule_that_is_only_offered_is_the_default_too(tmp_path: Path) -> None:
    every = OFFERED.sub("", TEXT)
    said, plain = keys(every), Config().flat()
    differ = {key for key, value in said.items() if plain[key] not in (value, None)}
    assert differ == set()
    read(tmp_path, every)  # whoever takes all the marks away has a file that is read


@pytest.mark.requirement("I8.policy.1")
def test_whatever_an_operator_may_narrow_is_in_the_file() -> None:
    said = keys(OFFERED.sub("", TEXT))
    bounds = {key for key, rule in RULES.items() if rule.narrow and not key.endswith("_soft")}
    assert said.keys() == bounds, "packaging/config/config.toml is to have one line for each"
    assert "<key>_soft" in TEXT


@pytest.mark.requirement("I8.policy.2")
@pytest.mark.parametrize("key", sorted(WIDER))
def test_a_user_is_held_by_it_and_is_told_so(tmp_path: Path, key: str) -> None:
    rule = _rule(key)
    assert rule is not None
    assert _widens(rule, Config().flat()[key], WIDER[key])
    variable = f"RUNLOOP__{key.upper().replace('.', '__')}"
    found = read(tmp_path, environ={variable: str(WIDER[key])})
    assert found.flat()[key] == Config().flat()[key]
    assert len(found.warnings) == 1
    assert variable in found.warnings[0]
    assert "system.toml:" in found.warnings[0]  # with the line that holds
    assert (
        load(home=tmp_path, environ={variable: str(WIDER[key])}, system_file=tmp_path / "none").flat()[key]
        == (WIDER[key])
    )


def test_each_line_with_a_value_has_its_reason_above_it() -> None:
    """A rule without one is a riddle to whoever wants to change it."""
    wide = [line for line in TEXT.splitlines() if len(line) > 115]
    assert wide == []
    blocks = re.findall(r"^# .*\n(?:^#?[a-z_]+ = .*\n)+", TEXT, re.MULTILINE)
    reasoned = sum(len(re.findall(r"^#?[a-z_]+ = ", block, re.MULTILINE)) for block in blocks)
    assert reasoned == len(keys(OFFERED.sub("", TEXT))) + len(["version"])
