"""Configuration: precedence, origins, bounds, suggestions, narrowing; and where things lie."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runloop import config
from runloop.config import (
    AGENT_QUOTA_RULES,
    PROVIDER_RULES,
    RULES,
    Config,
    ConfigError,
    Origin,
    Paths,
    load,
    shipped,
)
from runloop.errors import NotFoundError, UsageError

Read = Callable[..., Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a configuration from texts instead of files."""

    def from_texts(
        user: str = "",
        system: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> Config:
        (tmp_path / "config.toml").write_text(user)
        (tmp_path / "system.toml").write_text(system)
        return load(home=tmp_path, environ=environ or {}, flags=flags, system_file=tmp_path / "system.toml")

    return from_texts


# --- the schema -----------------------------------------------------------------------------------


def test_every_rule_has_its_field_and_every_field_its_rule() -> None:
    fields = {
        f"{section}.{ {'sender': 'from'}.get(name, name) }"
        for section in Config._fields[:-2]
        for name in getattr(Config(), section)._fields
    } - {"models.providers", "quotas.agents"}
    assert fields == set(RULES)


def test_every_default_passes_its_own_rule() -> None:
    for key, value in Config().flat().items():
        if value is not None:
            assert config._wrong(key, value, RULES[key]) is None


def test_every_rule_of_a_number_has_both_bounds() -> None:
    for key, rule in {**RULES, **PROVIDER_RULES}.items():
        assert (rule.kind == "int") == (rule.low is not None and rule.high is not None), key


OTHER: dict[str, Any] = {
    "runtime.socket_path": "/tmp/other.sock",
    "runtime.run_memory_bytes": 1 << 30,
    "runtime.run_processes": 64,
    "runtime.run_cpu_weight": 50,
    "models.default": "rules",
    "models.detect": "vllm ollama",
    "models.detect_ollama": False,
    "models.privacy": "local",
    "models.prefer": "cost",
    "models.mode": "replay",
    "models.cassette": "/tmp/told.jsonl",
    "models.cassette_pace": "recorded",
    "models.cache": True,
    "models.cache_ttl_ms": 5_000,
    "models.cache_bytes": 6_000,
    "security.undo_window_ms": 9_000,
    "security.approval_expiry_ms": 60_000,
    "security.allow_unsigned_agents": True,
    "security.agent_index": "/srv/agents",
    "security.web_authorities": "/etc/ssl/ours.pem",
    "security.private_ok": "api.example.org mcp:notes",
    "security.sandbox": "container",
    "security.sandbox_engine": "/usr/bin/podman",
    "security.sandbox_image": "sha256:" + "a" * 64,
    "security.control_groups": "required",
    "bus.durable_topics": "kept/* orders/new",
    "bus.durable_bytes": 1_000,
    "bus.durable_window": 8,
    "kb.synchronous": "NORMAL",
    "mail.provider": "smtp",
    "mail.from": "me@example.org",
    "mail.host": "mail.example.org",
    "mail.port": 25,
    "mail.tls": "none",
    "mail.user": "me",
    "mail.password_env": "MAIL_PASSWORD",
    "mail.secret": "runloop/mail/smtp",
    "budgets.run_micro_usd": 7,
    "budgets.run_tokens": 8,
    "budgets.ask_micro_usd": 6,
    "quotas.turns": 3,
    "quotas.calls": 9,
    "quotas.bytes": 10,
    "quotas.memory_keys": 11,
    "quotas.memory_bytes": 17,
    "quotas.promises": 18,
    "quotas.messages": 20,
    "quotas.mails": 7,
    "quotas.tokens": 13,
    "quotas.fuel": 14,
    "quotas.wall_ms": 15,
    "quotas.micro_usd": 16,
    "kb.embedder": "lexical",
    "kb.embed_micro_usd": 5,
    "quotas.turns_soft": 1,
    "quotas.memory_bytes_soft": 12,
    "quotas.promises_soft": 19,
    "quotas.messages_soft": 11,
    "quotas.calls_soft": 2,
    "quotas.bytes_soft": 3,
    "quotas.memory_keys_soft": 4,
    "quotas.mails_soft": 5,
    "quotas.tokens_soft": 6,
    "quotas.fuel_soft": 7,
    "quotas.wall_ms_soft": 8,
    "quotas.micro_usd_soft": 9,
    "breaker.failures": 3,
    "breaker.window_ms": 5_000,
    "scheduler.zone": "Asia/Tokyo",
    "scheduler.day_micro_usd": 2,
    "scheduler.run_micro_usd": 3,
    "scheduler.max_runs": 4,
    "scheduler.grace_ms": 5_000,
    "scheduler.watch_hops": 6,
    "logging.level": "debug",
    "ui.theme": "high-contrast",
}


@pytest.mark.parametrize("key", sorted(RULES))
def test_every_key_can_be_set_in_a_file_and_by_the_environment(read: Read, key: str) -> None:
    value = OTHER[key]
    section, _, name = key.partition(".")
    text = f"'{value}'" if isinstance(value, str) else str(value).lower()
    extra = {
        "mail.provider": "host = 'mail.example.org'\nfrom = 'me@example.org'\n",
        "models.mode": "cassette = 'told.jsonl'\n",
    }.get(key, "")
    by_file = read(f"[{section}]\n{extra}{name} = {text}\n")
    variables = {
        f"RUNLOOP__{key.upper().replace('.', '__')}": str(value).lower() if value is False else str(value)
    }
    if key == "models.mode":
        variables["RUNLOOP__MODELS__CASSETTE"] = "told.jsonl"
    elif extra:
        variables["RUNLOOP__MAIL__HOST"] = "mail.example.org"
        variables["RUNLOOP__MAIL__FROM"] = "me@example.org"
    by_environment = read(environ=variables)
    assert by_file.flat()[key] == by_environment.flat()[key] == value != Config().flat()[key]


# --- layers ---------------------------------------------------------------------------------------


def test_a_flag_beats_the_environment_beats_the_user_beats_the_system_beats_the_default(read: Read) -> None:
    user, system = "[logging]\nlevel='warning'\n", "[logging]\nlevel='error'\n"
    environ = {"RUNLOOP__LOGGING__LEVEL": "debug"}
    assert read().logging.level == "info"
    assert read(system=system).logging.level == "error"
    assert read(user, system).logging.level == "warning"
    assert read(user, system, environ).logging.level == "debug"
    assert read(user, system, environ, {"logging.level": "info"}).logging.level == "info"


def test_every_value_tells_where_it_comes_from(read: Read, tmp_path: Path) -> None:
    found = read(
        "# mine\n[security]\nundo_window_ms = 6000\n",
        "[logging]\nlevel = 'error'\n",
        {"RUNLOOP__MAIL__FROM": "me@example.org"},
        {"budgets.run_tokens": "100"},
    )
    assert found.origins["security.undo_window_ms"] == Origin("user", f"{tmp_path}/config.toml:3")
    assert found.origins["logging.level"] == Origin("system", f"{tmp_path}/system.toml:2")
    assert found.origins["mail.from"] == Origin("environment", "RUNLOOP__MAIL__FROM")
    assert found.origins["budgets.run_tokens"] == Origin("flag", "--set budgets.run_tokens")
    assert found.origins["kb.synchronous"] == Origin("default", "")


def test_text_from_the_environment_becomes_the_type_its_key_wants(read: Read) -> None:
    found = read(
        environ={
            "RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS": "True",
            "RUNLOOP__BUDGETS__RUN_TOKENS": "50_000",
            "RUNLOOP__MAIL__USER": "12345",
        }
    )
    assert found.security.allow_unsigned_agents is True
    assert found.budgets.run_tokens == 50_000
    assert found.mail.user == "12345"


def test_variables_with_one_underscore_are_none_of_ours(read: Read) -> None:
    assert read(environ={"RUNLOOP_HOME": "/x", "RUNLOOP_SOMETHING": "y"}) == read()


def test_a_provider_is_a_table_of_its_own(read: Read) -> None:
    found = read(
        """
        [models]
        default = "lab"
        [models.providers.lab]
        kind = "openai"
        base_url = "http://127.0.0.1:8080"
        model = "tiny"
        [models.providers.lab.price]
        input_micro_usd_per_mtok = 150000
        version = "2026-11"
        """,
        environ={"RUNLOOP__MODELS__PROVIDERS__LAB__TIMEOUT_MS": "500"},
    )
    lab = found.models.providers["lab"]
    assert (lab.name, lab.model, lab.timeout_ms) == ("lab", "tiny", 500)
    assert lab.price is not None
    assert (lab.price.input_micro_usd_per_mtok, lab.price.version) == (150_000, "2026-11")
    assert found.flat()["models.providers.lab.price.version"] == "2026-11"
    assert read("[models.providers.x]\nmodel='m'\n").models.providers["x"].price is None


# --- what is wrong --------------------------------------------------------------------------------


def test_all_findings_come_at_once_with_their_places(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            "[security]\nundo_window = 5\n[quotas]\ncalls = true\n",
            environ={"RUNLOOP__LOGGING__LEVEL": "loud"},
            flags={"mail.port": "70000"},
        )
    file = tmp_path / "config.toml"
    assert caught.value.findings == [
        f"{file}:2: unknown key 'security.undo_window'; did you mean 'security.undo_window_ms'?",
        f"{file}:4: 'quotas.calls' must be a whole number, not True",
        "RUNLOOP__LOGGING__LEVEL: 'logging.level' must be one of debug, info, warning, error, not 'loud'",
        "--set mail.port: 'mail.port' must be between 1 and 65535, not 70000",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[budgets]\nundo_window_ms = 1\n", "did you mean 'security.undo_window_ms'?"),
        ("level = 'info'\n", "did you mean 'logging.level'?"),
        ("[models.providers.lab]\nbase_ulr = 'x'\n", "did you mean 'models.providers.lab.base_url'?"),
        ("[models.providers.'La b']\nmodel = 'x'\n", "unknown key"),
        ("[security\n", "Expected ']'"),
        ("version = 2\n", "version 2 is not known"),
        ("[runtime]\nsocket_path = ''\n", "not empty"),
        ('[mail]\nfrom = "a\\nBcc: b"\n', "without control characters"),
        ("[mail]\nprovider = 'smtp'\n", "'mail.host' is not set"),
        ("[models]\ndefault = 'nobody'\n", "names no provider"),
        ("[models.providers.a]\napi_key_env = 'A'\nsecret = 'a'\n", "keep one"),
        ("[security]\nallow_unsigned_agents = 1\n", "must be true or false"),
        ("[logging]\nlevel = 3\n", "must be text"),
    ],
)
def test_a_wrong_value_is_refused_in_words(read: Read, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        read(text)
    assert said in caught.value.message


def test_a_key_pasted_into_the_file_is_refused_without_being_repeated(read: Read) -> None:
    with pytest.raises(ConfigError) as caught:
        read("[models.providers.lab]\napi_key = 'sk-canary-8731'\n")
    assert "canary" not in str(caught.value) + repr(caught.value.data)


def test_a_file_that_is_not_text_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load(home=tmp_path, environ={}, system_file=tmp_path / "none.toml")


# --- the operator's word --------------------------------------------------------------------------

STRICT = """
[security]
undo_window_ms = 10000
approval_expiry_ms = 3600000
allow_unsigned_agents = false
[budgets]
run_micro_usd = 1000
[kb]
synchronous = 'FULL'
"""


@pytest.mark.parametrize(
    ("key", "wider", "narrower"),
    [
        ("security.undo_window_ms", 5_000, 20_000),
        ("security.approval_expiry_ms", 7_200_000, 60_000),
        ("security.allow_unsigned_agents", True, False),
        ("budgets.run_micro_usd", 1_001, 999),
        ("kb.synchronous", "NORMAL", "EXTRA"),
    ],
)
def test_what_the_system_sets_can_only_be_narrowed(read: Read, key: str, wider: Any, narrower: Any) -> None:
    floor = read(system=STRICT).flat()[key]
    variable = f"RUNLOOP__{key.upper().replace('.', '__')}"
    refused = read(system=STRICT, environ={variable: str(wider)})
    assert refused.flat()[key] == floor
    assert len(refused.warnings) == 1
    assert variable in refused.warnings[0]
    assert refused.origins[key].layer == "system"
    obeyed = read(system=STRICT, environ={variable: str(narrower)})
    assert obeyed.flat()[key] == narrower
    assert obeyed.warnings == ()


def test_the_index_of_agents_the_system_sets_is_not_exchanged(read: Read) -> None:
    system = '[security]\nagent_index = "/srv/agents"\n'
    found = read('[security]\nagent_index = "/home/me/agents"\n', system)
    assert found.security.agent_index == "/srv/agents"
    (warning,) = found.warnings
    assert "security.agent_index" in warning
    assert read('[security]\nagent_index = "/home/me/agents"\n').security.agent_index == "/home/me/agents"


def test_without_a_system_file_the_user_may_widen_the_default(read: Read) -> None:
    found = read("[security]\nundo_window_ms = 0\n")
    assert found.security.undo_window_ms == 0
    assert found.warnings == ()


# --- paths ----------------------------------------------------------------------------------------


def test_a_named_home_keeps_everything_in_itself(tmp_path: Path) -> None:
    paths = Paths.resolve({"RUNLOOP_HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/tmp"})
    assert paths.socket == tmp_path / "run" / "rmp.sock"
    inside = [
        paths.run_dir,
        paths.config_file,
        paths.events_db,
        paths.views_db,
        paths.operator_key,
        paths.overrides_dir,
        paths.cache_dir,
        paths.outbox,
        paths.log_file,
    ]
    assert all(place.is_relative_to(tmp_path) for place in inside)
    assert len(set(inside)) == len(inside)


def test_the_default_home_has_its_socket_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = Paths.resolve({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert paths.home == tmp_path / ".runloop"
    assert paths.socket == tmp_path / "runloop" / "rmp.sock"
    assert Paths.resolve({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}).socket == (
        tmp_path / ".runloop" / "run" / "rmp.sock"
    )


def test_a_configured_socket_beats_both(tmp_path: Path) -> None:
    given = Paths.resolve({"RUNLOOP_HOME": str(tmp_path)}, socket_path=str(tmp_path / "s"))
    assert given.socket == tmp_path / "s"
    assert given.run_dir == tmp_path


@pytest.mark.parametrize("named", ["~nobody-of-that-name/x", "/a\0b"])
def test_what_names_no_place_is_refused_in_words(tmp_path: Path, named: str) -> None:
    for wanted in ({"home": named}, {"home": tmp_path, "socket_path": named}):
        with pytest.raises(UsageError, match="names no place") as caught:
            Paths.resolve({}, **wanted)  # type: ignore[arg-type]
        assert caught.value.named_code == "config.place"
    with pytest.raises(UsageError):
        Paths.resolve({"RUNLOOP_HOME": named})


def test_a_relative_runtime_directory_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert Paths.resolve({"XDG_RUNTIME_DIR": "here"}).socket == tmp_path / ".runloop" / "run" / "rmp.sock"


def test_an_argument_beats_the_variable(tmp_path: Path) -> None:
    assert Paths.resolve({"RUNLOOP_HOME": "/elsewhere"}, home=tmp_path).home == tmp_path


def test_a_socket_path_that_does_not_fit_is_refused_with_the_way_out(tmp_path: Path) -> None:
    fits = "/" + "s" * 106
    assert Paths.resolve({"RUNLOOP_HOME": str(tmp_path)}, socket_path=fits).socket == Path(fits)
    with pytest.raises(UsageError, match="108 bytes") as caught:
        Paths.resolve({"RUNLOOP_HOME": str(tmp_path)}, socket_path=fits + "s")
    assert "runtime.socket_path" in (caught.value.hint or "")


def test_here_comes_before_home_and_what_is_shipped_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Paths.resolve({"RUNLOOP_HOME": str(tmp_path / "home")})
    assert paths.agents_dirs[0] == tmp_path / "agents"
    assert paths.agents_dirs[1] == tmp_path / "home" / "agents"
    assert paths.openings_dirs[0] == tmp_path / "openings"
    assert paths.agents_dirs[-1] == shipped("agents")
    assert paths.openings_dirs[-1] == shipped("openings")


def test_what_is_shipped_is_found_in_a_checkout_and_in_an_installed_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (shipped("openings") / "compose_email.yaml").is_file()
    installed = tmp_path / "site-packages" / "runloop"
    (installed / "_shipped" / "agents").mkdir(parents=True)
    (installed.parent / "openings" / "library").mkdir(parents=True)
    monkeypatch.setattr(config, "__file__", str(installed / "config.py"))
    assert shipped("agents") == installed / "_shipped" / "agents"
    assert shipped("openings") == installed.parent / "openings" / "library"
    with pytest.raises(NotFoundError, match="runner"):
        shipped("runner")


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "dataclasses,tomllib,json,asyncio,msgspec,logging,difflib"
    code = f"import sys, runloop.config; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[models.providers.x]\nkind = 'openai'\n", "'models.providers.x' names no 'model'"),
        ("[mail]\nprovider = 'smtp'\nhost = 'h.example'\n", "'mail.from' is not set"),
        (
            "[mail]\nprovider = 'smtp'\nhost = 'h.example'\nfrom = 'a@b.example'\ntls = 'none'\n",
            "unencrypted",
        ),
        (
            "[mail]\nprovider = 'smtp'\nhost = 'h.example'\nfrom = 'a@b.example'\nuser = 'u'\n",
            "belongs together",
        ),
        ("[mail]\nprovider = 'smtp'\npassword_env = 'P'\nsecret = 'runloop/mail/smtp'\n", "keep one"),
    ],
)
def test_what_the_daemon_would_refuse_at_start_is_found_when_the_file_is_read(
    read: Read, text: str, finding: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [found for found in caught.value.findings if finding in found]


# --- quotas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(AGENT_QUOTA_RULES))
def test_every_quota_can_be_another_for_one_agent(read: Read, name: str) -> None:
    found = read(f"[quotas.agents.writer]\n{name} = 1\n")
    assert found.quotas.agents == {"writer": {name: 1}}
    assert found.flat()[f"quotas.agents.writer.{name}"] == 1
    assert found.origins[f"quotas.agents.writer.{name}"].layer == "user"
    by_environment = read(environ={f"RUNLOOP__QUOTAS__AGENTS__WRITER__{name.upper()}": "1"})
    assert by_environment.quotas == found.quotas


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[quotas.agents.writer]\ncall = 1\n", "did you mean 'quotas.agents.writer.calls'"),
        ("[quotas.agents.Writer]\ncalls = 1\n", "unknown key 'quotas.agents.Writer.calls'"),
        ("[quotas.agents.a-b]\ncalls = 1\n", "unknown key 'quotas.agents.a-b.calls'"),
        ("[quotas.agents.writer]\ncalls = 0\n", "must be between 1 and"),
        ("[quotas]\nagents = 3\n", "unknown key 'quotas.agents'"),
        ("[quotas]\ncalls = 5\ncalls_soft = 6\n", "'quotas.calls_soft' is 6, beyond the limit itself (5)"),
        ("[quotas]\ncalls_soft = 6\n[quotas.agents.a]\ncalls = 5\n", "'quotas.agents.a.calls_soft' is 6"),
    ],
)
def test_a_quota_that_makes_no_sense_is_told(read: Read, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        read(text)
    assert says in str(wrong.value)


def test_an_agents_own_quota_is_not_wider_than_the_systems(read: Read) -> None:
    found = read("[quotas.agents.writer]\ncalls = 100\nmails = 100\n", "[quotas]\ncalls = 50\n")
    assert found.quotas.agents == {"writer": {"mails": 100}}
    (warning,) = found.warnings
    assert "'quotas.agents.writer.calls' = 100 is wider than the system's 50" in warning
    granted = read("", "[quotas]\ncalls = 50\n[quotas.agents.writer]\ncalls = 500\n")
    assert granted.quotas.agents == {"writer": {"calls": 500}}
    kept = read(
        "[quotas.agents.writer]\ncalls = 501\n", "[quotas]\ncalls=50\n[quotas.agents.writer]\ncalls = 500\n"
    )
    assert kept.quotas.agents == {"writer": {"calls": 500}}


@pytest.mark.parametrize("patterns", ["*", "rlp/*", "agent/writer", "a/*/b", "durable/* agent/*"])
def test_a_topic_of_the_system_cannot_be_made_durable(read: Read, patterns: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"[bus]\ndurable_topics = '{patterns}'\n")
    assert "bus.durable_topics" in str(caught.value.findings)
