"""Configuration: one schema, five layers, the origin of every value; and where things lie on disk.

Knows: the keys of configuration version 1, their types, bounds and defaults; the precedence flags >
environment > user file > system file > defaults; which keys an operator's system file may only be narrowed
in; the paths under a home directory and the files this distribution ships. Does not know: what any service
does with a value, or whether a path exists (except the shipped ones).

Imported before every command of ``rlp``, so it loads nothing heavy: records are named tuples, because the
``dataclasses`` module alone costs as much start-up time as the whole interpreter; ``tomllib`` is imported
when there is a file to read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from runloop.errors import NotFoundError, UsageError

__all__ = [
    "AGENT_QUOTA_RULES",
    "MAX_SOCKET_PATH",
    "MODEL_SERVERS",
    "RULES",
    "Breaker",
    "Budgets",
    "Bus",
    "Config",
    "ConfigError",
    "Kb",
    "Logging",
    "Mail",
    "Models",
    "Origin",
    "Paths",
    "Price",
    "Provider",
    "Quotas",
    "Rule",
    "Runtime",
    "Scheduler",
    "Security",
    "Shipped",
    "load",
    "shipped",
]

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path, without the closing zero (sockaddr_un, Linux)."""

_PREFIX = "RUNLOOP__"
_SYSTEM_FILE = Path("/etc/runloop/config.toml")


class ConfigError(UsageError):
    """One or more values of the configuration are wrong; ``findings`` holds each in words."""

    code = "config.invalid"

    def __init__(self, findings: list[str]) -> None:
        super().__init__(
            "; ".join(findings),
            hint="correct them; 'rlp config check' looks again",
            findings=findings,
        )
        self.findings = findings


# --- the typed sections ---------------------------------------------------------------------------


class Runtime(NamedTuple):
    """``[runtime]``: where the daemon answers, and what of the machine one run may have.

    The bounds of a run hold where the daemon has control groups of its own ('rlp doctor' says so).
    """

    socket_path: str | None = None
    run_memory_bytes: int = 8_589_934_592
    """Of all processes of a run together: its agents at work and their programs."""
    run_processes: int = 4_096
    """Processes and threads, likewise."""
    run_cpu_weight: int = 100
    """Of the processor, where it is short: a run against others, and against the daemon, which has 1000."""


class Price(NamedTuple):
    """``[models.providers.<name>.price]``: what a remote model costs."""

    input_micro_usd_per_mtok: int = 0
    """Millionths of a US dollar per million input tokens."""
    output_micro_usd_per_mtok: int = 0
    version: str = "config"
    """Written into every ``model.called`` event."""


class Provider(NamedTuple):
    """``[models.providers.<name>]``: one model server."""

    name: str
    kind: str = "openai"
    base_url: str | None = None
    model: str | None = None
    embed_model: str | None = None
    """Model that turns texts into vectors; None: this provider embeds nothing."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; never the key."""
    secret: str | None = None
    """Name of a stored secret that holds the key."""
    timeout_ms: int = 60_000
    price: Price | None = None
    """None: a server on this machine costs nothing; a hosted one is refused unless a price list that comes
    with Runloop names its model."""
    quality: int | None = None
    """How good its answers are, 0 to 100: the operator's word, for ``models.prefer = "quality"``."""
    privacy: str | None = None
    """``local``: what is sent there stays with the operator; ``cloud``: it does not. None: by the address."""


MODEL_SERVERS = ("ollama", "llamacpp", "vllm", "lmstudio")
"""Kinds of model servers that can be found on this machine, in the order they are asked."""


class Models(NamedTuple):
    """``[models]``: who answers ``model.complete``."""

    default: str | None = None
    """Provider asked first; None: the first of what is detected, in the end the offline rules."""
    detect: str = "ollama llamacpp vllm lmstudio"
    """Local model servers to look for at their usual ports; ``none``: nobody is looked for."""
    detect_ollama: bool = True
    """The older word: false looks for none of them."""
    privacy: str = "cloud"
    """``local``: nothing leaves this machine. ``hybrid``: local models first, and a remote one only for
    requests that hold nothing private. ``cloud``: whatever is configured may be asked."""
    prefer: str = "order"
    """Which of several is asked first: the default and its fall-backs (``order``), or among everything
    configured the cheapest (``cost``), the quickest to its first word (``latency``, measured), or the best in
    the operator's word (``quality``)."""
    mode: str = "live"
    """``record`` also writes every answer on the cassette; ``replay`` answers from it alone."""
    cassette: str | None = None
    """File of recorded answers; a relative path is one in the home."""
    cassette_pace: str = "instant"
    cache: bool = False
    """Whether an equal request of the same agent gets the answer it got before; where chance has no part."""
    cache_ttl_ms: int = 86_400_000
    cache_bytes: int = 67_108_864
    providers: Mapping[str, Provider] = {}

    @property
    def looked_for(self) -> tuple[str, ...]:
        """The servers of ``detect``, in the order they are asked; none where an older file forbids it."""
        words = self.detect.split() if self.detect_ollama else []
        return tuple(name for name in MODEL_SERVERS if name in words)


class Security(NamedTuple):
    """``[security]``: what a person must see, and what may run."""

    undo_window_ms: int = 5_000
    approval_expiry_ms: int = 604_800_000
    allow_unsigned_agents: bool = False
    agent_index: str | None = None
    web_authorities: str | None = None
    private_ok: str | None = None
    sandbox: str = "bubblewrap"
    """What shuts programs in: ``bubblewrap``, with this machine's own; ``container``, with an image's."""
    sandbox_engine: str | None = None
    """Absolute path of podman, or of a rootless docker; None: whichever is installed."""
    sandbox_image: str | None = None
    """By digest: ``name@sha256:…`` or ``sha256:…``. It is never fetched."""
    control_groups: str = "auto"
    """``required``: a daemon that cannot bound memory and processes of each run by them does not start."""


class Bus(NamedTuple):
    """``[bus]``: which messages are kept, and how much of them."""

    durable_topics: str = "durable/*"
    """Patterns, separated by spaces: what is published there is in the ledger before it is delivered."""
    durable_bytes: int = 1_073_741_824
    """Bytes one publisher may keep in the ledger so; it is append-only, they stay."""
    durable_window: int = 256
    """Deliveries a consumer may leave unacknowledged before it gets no more."""


class Kb(NamedTuple):
    """``[kb]``: how hard the ledger is written, and who makes the vectors of a search."""

    synchronous: str = "FULL"
    embedder: str = "auto"
    """``auto``: an embedding model on this machine where one is configured; ``lexical``: none; or the name of
    a provider, which may then be remote and is sent everything that can be searched for."""
    embed_micro_usd: int = 0
    """Most that indexing with a priced model may cost, over all time."""


class Mail(NamedTuple):
    """``[mail]``: how an approved message leaves."""

    provider: str = "outbox"
    sender: str | None = None
    """Key ``from``: the address in the From header; None: ``<user>@localhost``."""
    host: str | None = None
    port: int = 587
    tls: str = "starttls"
    user: str | None = None
    password_env: str | None = None
    secret: str | None = None
    """Name of a stored secret that holds the password."""


class Budgets(NamedTuple):
    """``[budgets]``: upper bounds of one run, unless its opening sets lower ones."""

    run_micro_usd: int = 1_000_000
    run_tokens: int = 200_000
    ask_micro_usd: int | None = None
    """A model call that would bring a run's spending over this waits for a person. None: nobody is asked."""


class Quotas(NamedTuple):
    """``[quotas]``: what one agent may use up in one run; ``[quotas.agents.<name>]``: another figure for one.

    At a hard limit the attempt ends as FAULTED. ``<resource>_soft`` is where a warning is stated before; left
    out, at 80 % of the hard limit.
    """

    turns: int = 1_000
    """Attempts of its nodes."""
    calls: int = 10_000
    """Host calls."""
    bytes: int = 67_108_864
    """Bytes of host-call requests and answers together."""
    memory_keys: int = 10_000
    """Keys in its own memory, whatever run wrote them."""
    memory_bytes: int = 16_777_216
    """Bytes of keys and values in its own memory, whatever run wrote them."""
    promises: int = 1_000
    """Promises it makes, questions to a person included."""
    messages: int = 10_000
    """Messages it says to other agents of the run."""
    mails: int = 10
    tokens: int = 1_000_000
    """Tokens of model calls, beside the run's own budget."""
    fuel: int = 2_000_000_000_000
    """Instructions, roughly."""
    wall_ms: int = 900_000
    """Milliseconds in which it computes, or has the daemon compute for it; waiting for a person or a model
    does not count."""
    micro_usd: int = 10_000_000
    """Money, beside the run's own budget."""
    turns_soft: int | None = None
    calls_soft: int | None = None
    bytes_soft: int | None = None
    memory_keys_soft: int | None = None
    memory_bytes_soft: int | None = None
    promises_soft: int | None = None
    messages_soft: int | None = None
    mails_soft: int | None = None
    tokens_soft: int | None = None
    fuel_soft: int | None = None
    wall_ms_soft: int | None = None
    micro_usd_soft: int | None = None
    agents: Mapping[str, Mapping[str, int]] = {}
    """Agent -> key of this section -> its own figure."""


class Breaker(NamedTuple):
    """``[breaker]``: when an agent that keeps failing is quarantined."""

    failures: int = 8
    """Crashes, traps and breaches of one agent within the window."""
    window_ms: int = 600_000


class Scheduler(NamedTuple):
    """``[scheduler]``: what schedules and watched folders may start, and spend."""

    zone: str | None = None
    """Time zone of schedules that name none; None: the machine's own."""
    day_micro_usd: int = 1_000_000
    """Most that everything they start may cost in any 24 hours."""
    run_micro_usd: int = 50_000
    """Most that one run they start may cost: so much is set aside when it starts."""
    max_runs: int = 32
    """Runs they started that are not over, those that wait for a person included."""
    grace_ms: int = 60_000
    """A due time that passed longer ago was missed."""
    watch_hops: int = 8
    """Runs in a row that are started by nothing but what such runs wrote."""


class Logging(NamedTuple):
    """``[logging]``: how much the daemon writes down."""

    level: str = "info"


class Ui(NamedTuple):
    """``[ui]``: how things look."""

    theme: str = "runloop"
    """Colours of the cockpit, and of what ``rlp`` says on a terminal; ``none``: no colours."""


class Origin(NamedTuple):
    """Where a value came from."""

    layer: Literal["default", "system", "user", "environment", "flag"]
    where: str
    """File with line, variable or flag; empty for a default."""


class Config(NamedTuple):
    """Every value, validated, and where each came from."""

    runtime: Runtime = Runtime()
    models: Models = Models()
    security: Security = Security()
    bus: Bus = Bus()
    kb: Kb = Kb()
    mail: Mail = Mail()
    budgets: Budgets = Budgets()
    quotas: Quotas = Quotas()
    breaker: Breaker = Breaker()
    scheduler: Scheduler = Scheduler()
    logging: Logging = Logging()
    ui: Ui = Ui()
    origins: Mapping[str, Origin] = {}
    """Dotted key -> origin, for every key that has a value."""
    warnings: tuple[str, ...] = ()
    """Values that were ignored because the operator's system file is stricter."""

    def key_variables(self) -> frozenset[str]:
        """Environment variables that hold a key, by this configuration."""
        named = {provider.api_key_env for provider in self.models.providers.values()}
        return frozenset(name for name in (*named, self.mail.password_env) if name)

    def flat(self) -> dict[str, Any]:
        """Every dotted key with its value, in schema order; providers only where configured."""
        values: dict[str, Any] = {}
        for key in RULES:
            section, name = key.split(".")
            values[key] = getattr(getattr(self, section), _FIELD.get(key, name))
        for agent, own in self.quotas.agents.items():
            values |= {f"quotas.agents.{agent}.{name}": value for name, value in own.items()}
        for provider in self.models.providers.values():
            stem = f"models.providers.{provider.name}"
            for name in PROVIDER_RULES:
                if name.startswith("price."):
                    if provider.price is not None:
                        values[f"{stem}.{name}"] = getattr(provider.price, name.removeprefix("price."))
                else:
                    values[f"{stem}.{name}"] = getattr(provider, name)
        return values


# --- the schema -----------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What one key accepts."""

    kind: Literal["str", "int", "bool"]
    doc: str
    choices: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None
    narrow: Literal["smaller", "larger", "false", "earlier", "fixed"] | None = None
    """How a user may depart from the operator's system file: only in this direction (``earlier``: towards
    the front of ``choices``), or not at all (``fixed``). None: freely."""


_DAY_MS = 86_400_000

_QUOTAS: Mapping[str, tuple[str, int, int]] = {
    "turns": ("attempts of one agent in a run", 1, 10**9),
    "calls": ("host calls of one agent in a run", 1, 10**9),
    "bytes": ("bytes in and out of one agent's host calls in a run", 1, 10**12),
    "memory_keys": ("memory keys of one agent", 0, 10**9),
    "memory_bytes": ("bytes in one agent's memory", 0, 10**12),
    "promises": ("promises one agent may make in a run", 0, 10**6),
    "messages": ("messages one agent may say in a run", 0, 10**6),
    "mails": ("mails one agent may ask for in a run", 0, 10**6),
    "tokens": ("tokens of one agent's model calls in a run", 0, 10**12),
    "fuel": ("units of fuel of one agent in a run", 1, 2**53 - 1),
    "wall_ms": ("milliseconds one agent keeps itself or the daemon busy in a run", 1, 366 * _DAY_MS),
    "micro_usd": ("millionths of a US dollar one agent may spend in a run", 0, 10**12),
}
"""Resource -> what it counts, and the bounds of its limit."""

RULES: Mapping[str, Rule] = {
    "runtime.socket_path": Rule("str", "Unix socket of the daemon"),
    "runtime.run_memory_bytes": Rule(
        "int", "bytes that all processes of one run may hold together, where there are control groups",
        low=64 * 1024 * 1024, high=2**53 - 1, narrow="smaller",
    ),
    "runtime.run_processes": Rule(
        "int", "processes and threads of one run, where there are control groups", low=16, high=4_194_304,
        narrow="smaller",
    ),
    "runtime.run_cpu_weight": Rule(
        "int", "share of the processor of one run where there are control groups; the daemon's own is 1000",
        low=1, high=1_000, narrow="smaller",
    ),
    "models.default": Rule("str", "name of the provider to ask first; 'rules' stays offline"),
    "models.detect": Rule(
        "str", "model servers to look for on 127.0.0.1, separated by spaces, or none: ollama (11434),"
        " llamacpp (8080), vllm (8000), lmstudio (1234)", narrow="fixed",
    ),
    "models.detect_ollama": Rule("bool", "the older word for it: false looks for none", narrow="false"),
    "models.privacy": Rule(
        "str", "which models may be asked: on this machine; remote ones for what is not private; all",
        choices=("local", "hybrid", "cloud"), narrow="earlier",
    ),
    "models.prefer": Rule(
        "str", "which is asked first: the default, the cheapest, the quickest, the best",
        choices=("order", "cost", "latency", "quality"),
    ),
    "models.mode": Rule(
        "str", "ask models; also write their answers on the cassette; or answer from it alone",
        choices=("live", "record", "replay"),
    ),
    "models.cassette": Rule("str", "file of recorded answers; a relative path is one in the home"),
    "models.cassette_pace": Rule(
        "str", "how fast a recorded answer is told again", choices=("instant", "recorded")
    ),
    "models.cache": Rule(
        "bool", "answer an equal request of the same agent from what it was told before", narrow="false"
    ),
    "models.cache_ttl_ms": Rule(
        "int", "milliseconds a kept answer holds", low=1_000, high=366 * _DAY_MS, narrow="smaller"
    ),
    "models.cache_bytes": Rule(
        "int", "bytes of kept answers; the oldest go first", low=0, high=10**12, narrow="smaller"
    ),
    "security.undo_window_ms": Rule(
        "int", "milliseconds between an approval and its dispatch", low=0, high=3_600_000, narrow="larger"
    ),
    "security.approval_expiry_ms": Rule(
        "int", "milliseconds until an unanswered approval expires", low=1_000, high=366 * _DAY_MS,
        narrow="smaller",
    ),
    "security.allow_unsigned_agents": Rule(
        "bool", "run agents nobody vouches for, from ./agents and the home", narrow="false"
    ),
    "security.agent_index": Rule(
        "str", "index of agents, or the folder it lies in: asked at every install, and refused when stale",
        narrow="fixed",
    ),
    "security.web_authorities": Rule(
        "str", "PEM file of certificates that web servers may prove themselves with, beside the system's"
    ),
    "security.private_ok": Rule(
        "str",
        "places that may be told what is private, separated by spaces: host, host:port or mcp:<server>",
    ),
    "security.sandbox": Rule(
        "str", "what shuts programs in: this machine's programs, or those of an image",
        choices=("bubblewrap", "container"), narrow="fixed",
    ),
    "security.sandbox_engine": Rule(
        "str", "absolute path of podman, or of a rootless docker", narrow="fixed"
    ),
    "security.sandbox_image": Rule(
        "str", "image of the container sandbox by digest: name@sha256:… or sha256:…; never fetched",
        narrow="fixed",
    ),
    "security.control_groups": Rule(
        "str", "control groups that bound each run: where there are any, or no daemon without",
        choices=("required", "auto"), narrow="earlier",
    ),
    "bus.durable_topics": Rule("str", "patterns of topics, separated by spaces, that are kept in the ledger"),
    "bus.durable_bytes": Rule(
        "int", "bytes of messages one publisher may keep in the ledger", low=0, high=10**15, narrow="smaller"
    ),
    "bus.durable_window": Rule(
        "int", "deliveries of a durable consumer that may be unacknowledged", low=1, high=65_536,
        narrow="smaller",
    ),
    "kb.synchronous": Rule(
        "str", "how hard SQLite writes the ledger", choices=("EXTRA", "FULL", "NORMAL"), narrow="earlier"
    ),
    "kb.embedder": Rule(
        "str", "who makes the vectors of a search: auto (local models only), lexical, or a provider",
        narrow="fixed",
    ),
    "kb.embed_micro_usd": Rule(
        "int", "most that indexing may cost, in millionths of a US dollar", low=0, high=10**12,
        narrow="smaller",
    ),
    "mail.provider": Rule("str", "where approved mail goes", choices=("outbox", "smtp"), narrow="earlier"),
    "mail.from": Rule("str", "address in the From header"),
    "mail.host": Rule("str", "SMTP server"),
    "mail.port": Rule("int", "SMTP port", low=1, high=65_535),
    "mail.tls": Rule("str", "how the SMTP connection is protected", choices=("tls", "starttls", "none"),
                     narrow="earlier"),
    "mail.user": Rule("str", "SMTP user"),
    "mail.password_env": Rule("str", "environment variable that holds the SMTP password"),
    "mail.secret": Rule("str", "stored secret that holds the SMTP password"),
    "budgets.run_micro_usd": Rule(
        "int", "most a run may cost, in millionths of a US dollar", low=0, high=10**12, narrow="smaller"
    ),
    "budgets.run_tokens": Rule("int", "most tokens a run may use", low=0, high=10**12, narrow="smaller"),
    "budgets.ask_micro_usd": Rule(
        "int", "a model call that brings a run's spending over this waits for a person", low=0, high=10**12,
        narrow="smaller",
    ),
    **{
        f"quotas.{resource}{part}": Rule("int", f"{words}{doc}", low=low, high=high, narrow="smaller")
        for resource, (doc, low, high) in _QUOTAS.items()
        for part, words in (("", "most "), ("_soft", "a warning comes at so many "))
    },
    "breaker.failures": Rule(
        "int", "crashes, traps and breaches of an agent before it is quarantined", low=1, high=10_000,
        narrow="smaller",
    ),
    "breaker.window_ms": Rule(
        "int", "milliseconds within which they count together", low=1_000, high=_DAY_MS, narrow="larger"
    ),
    "scheduler.zone": Rule("str", "time zone of schedules that name none, as Europe/Berlin"),
    "scheduler.day_micro_usd": Rule(
        "int", "most that scheduled runs may cost in 24 hours, in millionths of a US dollar", low=0,
        high=10**12, narrow="smaller",
    ),
    "scheduler.run_micro_usd": Rule(
        "int", "most that one scheduled run may cost, in millionths of a US dollar", low=0, high=10**12,
        narrow="smaller",
    ),
    "scheduler.max_runs": Rule(
        "int", "scheduled runs that may be unfinished at a time", low=1, high=1_000, narrow="smaller"
    ),
    "scheduler.grace_ms": Rule(
        "int", "milliseconds after which a due time that passed was missed", low=1_000, high=_DAY_MS
    ),
    "scheduler.watch_hops": Rule(
        "int", "runs in a row that only what such runs wrote may start", low=0, high=1_000, narrow="smaller"
    ),
    "logging.level": Rule("str", "least level written", choices=("debug", "info", "warning", "error")),
    "ui.theme": Rule(
        "str", "colours of agtop and rlp on a terminal",
        choices=("runloop", "runloop-light", "high-contrast", "none"),
    ),
}  # fmt: skip
"""Every fixed key of version 1, dotted. Providers have their own (:data:`PROVIDER_RULES`)."""

PROVIDER_RULES: Mapping[str, Rule] = {
    "kind": Rule("str", "wire protocol", choices=("openai", "anthropic", "ollama")),
    "base_url": Rule("str", "address of the server, without the path of the call"),
    "model": Rule("str", "model to ask for"),
    "embed_model": Rule("str", "model that turns texts into vectors (ollama, openai)"),
    "api_key_env": Rule("str", "environment variable that holds the key"),
    "secret": Rule("str", "stored secret that holds the key"),
    "timeout_ms": Rule("int", "milliseconds for a whole answer", low=1, high=3_600_000),
    "quality": Rule("int", "how good its answers are, in your own word", low=0, high=100),
    "privacy": Rule(
        "str", "whether what is sent there stays with you; by the address otherwise",
        choices=("local", "cloud"),
    ),
    "price.input_micro_usd_per_mtok": Rule("int", "micro-dollars per million read", low=0, high=10**12),
    "price.output_micro_usd_per_mtok": Rule("int", "micro-dollars per million written", low=0, high=10**12),
    "price.version": Rule("str", "name of the price list"),
}  # fmt: skip
"""Keys under ``models.providers.<name>``."""

AGENT_QUOTA_RULES: Mapping[str, Rule] = {
    key.removeprefix("quotas."): rule for key, rule in RULES.items() if key.startswith("quotas.")
}
"""Keys under ``quotas.agents.<name>``."""

_FIELD = {"mail.from": "sender"}
_PROVIDERS = "models.providers."
_AGENT_QUOTAS = "quotas.agents."


def _rule(key: str) -> Rule | None:
    if key.startswith(_PROVIDERS):
        name, _, rest = key.removeprefix(_PROVIDERS).partition(".")
        return PROVIDER_RULES.get(rest) if _is_provider_name(name) else None
    if key.startswith(_AGENT_QUOTAS):
        name, _, rest = key.removeprefix(_AGENT_QUOTAS).partition(".")
        return AGENT_QUOTA_RULES.get(rest) if _is_provider_name(name) and "-" not in name else None
    return RULES.get(key)


def _floor(key: str, system: Mapping[str, _Found]) -> Any:
    """What the system file says of a key: for an agent's own quota, if nothing else, of the quota itself."""
    if key in system:
        return system[key].value
    if key.startswith(_AGENT_QUOTAS):
        general = f"quotas.{key.rpartition('.')[2]}"
        return system[general].value if general in system else None
    return None


def _is_provider_name(name: str) -> bool:
    return name[:1].isalpha() and name.replace("_", "").replace("-", "").isalnum() and name == name.lower()


# --- layers ---------------------------------------------------------------------------------------


class _Found(NamedTuple):
    value: Any
    origin: Origin


def _unknown(key: str) -> str:
    import difflib

    known = [*RULES]
    if key.startswith(_PROVIDERS):
        name = key.removeprefix(_PROVIDERS).partition(".")[0]
        known = [f"{_PROVIDERS}{name}.{rest}" for rest in PROVIDER_RULES]
    elif key.startswith(_AGENT_QUOTAS):
        name = key.removeprefix(_AGENT_QUOTAS).partition(".")[0]
        known = [f"{_AGENT_QUOTAS}{name}.{rest}" for rest in AGENT_QUOTA_RULES]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:  # right word, wrong section
        last = key.rpartition(".")[2]
        close = [one for one in known if one.rpartition(".")[2] == last][:1]
    return f"unknown key '{key}'" + (f"; did you mean '{close[0]}'?" if close else "")


def _wrong(key: str, value: Any, rule: Rule) -> str | None:
    """What is wrong with the value, in words; None when nothing is."""
    if type(value).__name__ != rule.kind:  # exact: True is not a whole number here
        words = {"str": "text", "int": "a whole number", "bool": "true or false"}[rule.kind]
        return f"'{key}' must be {words}, not {value!r}"
    if rule.choices and value not in rule.choices:
        return f"'{key}' must be one of {', '.join(rule.choices)}, not {value!r}"
    if rule.kind == "int" and not (cast(int, rule.low) <= value <= cast(int, rule.high)):
        return f"'{key}' must be between {rule.low} and {rule.high}, not {value}"
    if rule.kind == "str" and (not value or any(ord(char) < 32 for char in value)):
        return f"'{key}' must be text without control characters, and not empty"
    return None


def _from_text(rule: Rule, text: str) -> Any:
    """A value given as text (environment, flag) in the type its key wants; unparsable text stays text."""
    if rule.kind == "bool":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if rule.kind == "int":
        digits = text.replace("_", "")
        return int(digits) if digits.isascii() and digits.removeprefix("-").isdigit() else text
    return text


def _leaves(tree: Mapping[str, Any], stem: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in tree.items():
        key = f"{stem}{name}"
        if isinstance(value, dict) and key not in RULES:
            leaves += _leaves(value, f"{key}.") if value else []
        else:
            leaves.append((key, value))
    return leaves


def _line_of(text: str, key: str) -> int | None:
    """Line of a key in a TOML text, for messages; None where the layout is too clever to tell."""
    section, _, name = key.rpartition(".")
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            table = bare.strip("[] ").replace(" ", "").replace('"', "")
        elif "=" in bare:
            left = bare.partition("=")[0].strip().replace('"', "")
            if (table, left) == (section, name) or f"{table}.{left}".lstrip(".") == key:
                return number
    return None


def _read_file(path: Path, layer: Literal["system", "user"], findings: list[str]) -> dict[str, _Found]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        findings.append(f"{path}: {error}")
        return {}
    found: dict[str, _Found] = {}
    version = tree.pop("version", 1)
    if version != 1:
        findings.append(f"{path}: configuration version {version!r} is not known to this build (1 is)")
    for key, value in _leaves(tree):
        line = _line_of(text, key)
        where = f"{path}:{line}" if line else str(path)
        _take(key, value, Origin(layer, where), found, findings)
    return found


def _take(key: str, value: Any, origin: Origin, found: dict[str, _Found], findings: list[str]) -> None:
    rule = _rule(key)
    wrong = _unknown(key) if rule is None else _wrong(key, value, rule)
    if wrong:
        findings.append(f"{origin.where}: {wrong}")
    else:
        found[key] = _Found(value, origin)


def _read_environment(environ: Mapping[str, str], findings: list[str]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for variable in sorted(environ):
        if variable.startswith(_PREFIX):
            key = variable.removeprefix(_PREFIX).lower().replace("__", ".")
            rule = _rule(key)
            value = _from_text(rule, environ[variable]) if rule else environ[variable]
            _take(key, value, Origin("environment", variable), found, findings)
    return found


def _read_flags(flags: Mapping[str, Any], findings: list[str]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for key, value in flags.items():
        rule = _rule(key)
        if rule and isinstance(value, str):
            value = _from_text(rule, value)  # noqa: PLW2901
        _take(key, value, Origin("flag", f"--set {key}"), found, findings)
    return found


def _widens(rule: Rule, floor: Any, value: Any) -> bool:
    match rule.narrow:
        case "smaller":
            return bool(value > floor)
        case "larger":
            return bool(value < floor)
        case "false":
            return bool(value and not floor)
        case "earlier":
            return rule.choices.index(value) > rule.choices.index(floor)
        case "fixed":
            return bool(value != floor)
    return False


def load(
    *,
    home: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    system_file: Path = _SYSTEM_FILE,
) -> Config:
    """Read every layer and return the effective configuration.

    Raises :class:`ConfigError` naming every wrong or unknown key at once. A value that would widen what the
    system file sets is ignored and listed in :attr:`Config.warnings`.
    """
    findings: list[str] = []
    system = _read_file(system_file, "system", findings)
    layers = [
        system,
        _read_file(home / "config.toml", "user", findings),
        _read_environment(environ, findings),
        _read_flags(flags or {}, findings),
    ]
    warnings: list[str] = []
    chosen: dict[str, _Found] = {}
    for layer in layers:
        for key, found in layer.items():
            rule = cast(Rule, _rule(key))
            floor = _floor(key, system)
            if found.origin.layer != "system" and floor is not None and _widens(rule, floor, found.value):
                said = system.get(key) or system[f"quotas.{key.rpartition('.')[2]}"]
                warnings.append(
                    f"{found.origin.where}: '{key}' = {found.value!r} is wider than the system's "
                    f"{floor!r} ({said.origin.where}); ignored"
                )
            else:
                chosen[key] = found
    built = _build(chosen, tuple(warnings))
    _check_together(built, findings)
    if findings:
        raise ConfigError(findings)
    return built


def _build(chosen: Mapping[str, _Found], warnings: tuple[str, ...]) -> Config:
    sections: dict[str, dict[str, Any]] = {name: {} for name in Config._fields[:-2]}
    providers: dict[str, dict[str, Any]] = {}
    agents: dict[str, dict[str, int]] = {}
    origins = {key: Origin("default", "") for key in RULES}
    for key, found in chosen.items():
        origins[key] = found.origin
        if key.startswith(_PROVIDERS):
            name, _, rest = key.removeprefix(_PROVIDERS).partition(".")
            providers.setdefault(name, {})[rest] = found.value
        elif key.startswith(_AGENT_QUOTAS):
            name, _, rest = key.removeprefix(_AGENT_QUOTAS).partition(".")
            agents.setdefault(name, {})[rest] = found.value
        else:
            section, _, name = key.partition(".")
            sections[section][_FIELD.get(key, name)] = found.value
    made: dict[str, Provider] = {}
    for name, values in providers.items():
        price = {rest.removeprefix("price."): value for rest, value in values.items() if "." in rest}
        plain = {rest: value for rest, value in values.items() if "." not in rest}
        made[name] = Provider(name=name, price=Price(**price) if price else None, **plain)
    sections["models"]["providers"] = made
    sections["quotas"]["agents"] = agents
    return Config(
        runtime=Runtime(**sections["runtime"]),
        models=Models(**sections["models"]),
        security=Security(**sections["security"]),
        bus=Bus(**sections["bus"]),
        kb=Kb(**sections["kb"]),
        mail=Mail(**sections["mail"]),
        budgets=Budgets(**sections["budgets"]),
        quotas=Quotas(**sections["quotas"]),
        breaker=Breaker(**sections["breaker"]),
        scheduler=Scheduler(**sections["scheduler"]),
        logging=Logging(**sections["logging"]),
        ui=Ui(**sections["ui"]),
        origins=origins,
        warnings=warnings,
    )


def _check_bus(bus: Bus) -> list[str]:
    from runloop.rmp.topics import durable_patterns

    try:
        durable_patterns(bus.durable_topics)
    except UsageError as error:
        return [f"'bus.durable_topics': {error.message}"]
    return []


def _check_together(config: Config, findings: list[str]) -> None:
    """What no single key can tell."""
    findings.extend(_check_bus(config.bus))
    findings.extend(_check_mail(config.mail))
    findings.extend(_check_quotas(config.quotas))
    findings.extend(_check_scheduler(config.scheduler))
    default = config.models.default
    findings.extend(_check_detect(config.models.detect))
    if default and default not in {*config.models.providers, "rules", *MODEL_SERVERS}:
        known = ", ".join([*config.models.providers, *MODEL_SERVERS, "rules"])
        findings.append(f"'models.default' names no provider: {default!r} (known: {known})")
    if config.models.mode != "live" and not config.models.cassette:
        findings.append(f"'models.mode' is {config.models.mode}, but 'models.cassette' names no file")
    if config.kb.embedder not in {"auto", "lexical", *config.models.providers}:
        findings.append(f"'kb.embedder' names no provider: {config.kb.embedder!r} (or auto, lexical)")
    for provider in config.models.providers.values():
        if provider.kind != "ollama" and not provider.model:
            findings.append(f"'models.providers.{provider.name}' names no 'model'")
        if provider.api_key_env and provider.secret:
            findings.append(
                f"'models.providers.{provider.name}' has both 'api_key_env' and 'secret'; keep one"
            )


def _check_quotas(quotas: Quotas) -> list[str]:
    """A warning that would come after the end."""
    findings = []
    plain = {name: getattr(quotas, name) for name in AGENT_QUOTA_RULES}
    tables = {"quotas": {}, **{f"quotas.agents.{name}": own for name, own in quotas.agents.items()}}
    for stem, own in tables.items():
        said = {**plain, **own}
        findings += [
            f"'{stem}.{name}_soft' is {said[f'{name}_soft']}, beyond the limit itself ({said[name]})"
            for name in _QUOTAS
            if (said[f"{name}_soft"] or 0) > said[name] and (not own or {name, f"{name}_soft"} & own.keys())
        ]
    return findings


def _check_scheduler(scheduler: Scheduler) -> list[str]:
    if scheduler.zone is None:
        return []
    import zoneinfo

    if scheduler.zone in zoneinfo.available_timezones():
        return []
    return [f"'scheduler.zone' names no time zone: {scheduler.zone!r} (they are like Europe/Berlin)"]


def _check_detect(words: str) -> list[str]:
    unknown = sorted(set(words.split()) - {*MODEL_SERVERS, "none"})
    if not unknown and words.split() and ("none" not in words.split() or words.split() == ["none"]):
        return []
    named = f": {', '.join(unknown)}" if unknown else ""
    return [f"'models.detect' is a choice of {' '.join(MODEL_SERVERS)}, or none{named}"]


def _check_mail(mail: Mail) -> list[str]:
    """What the SMTP provider would refuse when the daemon starts."""
    if mail.provider != "smtp":
        return []
    findings = [
        f"'mail.provider' is smtp, but 'mail.{key}' is not set"
        for key, value in (("host", mail.host), ("from", mail.sender))
        if not value
    ]
    if mail.tls == "none" and mail.host and mail.host not in ("localhost", "127.0.0.1", "::1"):
        findings.append(f"'mail.tls' is none: mail to {mail.host} would cross the network unencrypted")
    if mail.password_env and mail.secret:
        findings.append("'mail' has both 'password_env' and 'secret'; keep one")
    if (mail.user is None) != (mail.password_env is None and mail.secret is None):
        findings.append("'mail.user' belongs together with 'mail.password_env' or 'mail.secret'")
    return findings


# --- where things lie -----------------------------------------------------------------------------


SYSTEM_HOME = Path("/var/lib/runloop")
SYSTEM_SOCKET = Path("/run/runloop/rmp.sock")
"""Where the Debian package's service keeps its state and listens (packaging/deb)."""


def _is_ours(path: Path) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _place(named: str, what: str) -> Path:
    """An absolute path. Not resolved: behind a symbolic link it keeps the name its owner gave it."""
    try:
        place = Path(named).expanduser().absolute()
    except RuntimeError as error:  # "~" of nobody, or of a user without a home
        raise UsageError(
            f"{named!r} names no place for {what}: there is no such user, or it has no home directory",
            hint="name the folder itself: RUNLOOP_HOME=/path, or --home",
            code="config.place",
        ) from error
    if "\0" in named:
        raise UsageError(
            f"{named!r} names no place for {what}: a path holds no zero byte",
            hint="name the folder itself",
            code="config.place",
        )
    return place


class Paths(NamedTuple):
    """The places of one home. Nothing here is created by asking for it."""

    home: Path
    socket: Path

    @classmethod
    def resolve(
        cls,
        environ: Mapping[str, str],
        *,
        home: str | os.PathLike[str] | None = None,
        socket_path: str | None = None,
    ) -> Paths:
        """Find the home (argument, ``$RUNLOOP_HOME``, ``~/.runloop``) and the socket.

        Whoever the system's daemon runs as, and names no home, means that daemon's: ``sudo -u runloop rlp``
        finds ``/var/lib/runloop`` and ``/run/runloop/rmp.sock``. Else the socket is ``socket_path`` (the
        value of ``runtime.socket_path``), else ``$XDG_RUNTIME_DIR/runloop/rmp.sock`` when no home was named,
        else ``run/rmp.sock`` in the home. A relative ``$XDG_RUNTIME_DIR`` counts as none: it would be another
        place in each folder. Raises :class:`UsageError` for a place that cannot be, and when the path of the
        socket does not fit a Unix socket address.
        """
        named = os.fspath(home) if home is not None else environ.get("RUNLOOP_HOME")
        root = _place(named or "~/.runloop", "the home")
        runtime_dir = environ.get("XDG_RUNTIME_DIR", "")
        if not named and _is_ours(SYSTEM_SOCKET):
            root = SYSTEM_HOME
        if socket_path:
            socket = _place(socket_path, "the socket")
        elif root == SYSTEM_HOME:
            socket = SYSTEM_SOCKET
        elif Path(runtime_dir).is_absolute() and not named and Path(runtime_dir).is_dir():
            socket = Path(runtime_dir) / "runloop" / "rmp.sock"
        else:
            socket = root / "run" / "rmp.sock"
        length = len(os.fsencode(socket))
        if length > MAX_SOCKET_PATH:
            raise UsageError(
                f"the socket path {socket} has {length} bytes, a Unix socket takes {MAX_SOCKET_PATH}",
                hint="set 'runtime.socket_path' (RUNLOOP__RUNTIME__SOCKET_PATH) to a shorter one",
                code="config.socket_path",
            )
        return cls(root, socket)

    @property
    def config_file(self) -> Path:
        return self.home / "config.toml"

    @property
    def run_dir(self) -> Path:
        """Directory of the socket; 0700."""
        return self.socket.parent

    @property
    def pog_dir(self) -> Path:
        return self.home / "pog"

    @property
    def events_db(self) -> Path:
        """The ledger."""
        return self.pog_dir / "events.db"

    @property
    def views_db(self) -> Path:
        """What is folded from the ledger; may be deleted and rebuilt."""
        return self.pog_dir / "views.db"

    @property
    def keys_dir(self) -> Path:
        return self.home / "keys"

    @property
    def operator_key(self) -> Path:
        """The operator credential: 32 raw bytes, 0600."""
        return self.keys_dir / "operator.key"

    @property
    def ledger_anchor(self) -> Path:
        """The ledger's last signed head; not beside the ledger, so that both must be changed together."""
        return self.keys_dir / "ledger.head"

    @property
    def trust_file(self) -> Path:
        """Who may publish agents here, as this user decided."""
        return self.home / "trust.toml"

    @property
    def kept_dir(self) -> Path:
        """Bundles by digest: installed ones, and those that runs pinned."""
        return self.home / "bundles"

    @property
    def overrides_dir(self) -> Path:
        """Operator overrides of agents' capabilities, ``<agent>.toml``."""
        return self.home / "caps" / "overrides"

    @property
    def cache_dir(self) -> Path:
        """Precompiled components; may be deleted."""
        return self.home / "cache"

    @property
    def names_file(self) -> Path:
        """Names for the completion of shells, kept by the daemon; may be deleted."""
        return self.cache_dir / "names"

    @property
    def outbox(self) -> Path:
        """Maildir of approved mail."""
        return self.home / "outbox"

    @property
    def log_file(self) -> Path:
        return self.home / "log" / "runloopd.log"

    @property
    def agents_dirs(self) -> tuple[Path, ...]:
        """Where agents are looked for, first hit first; the shipped ones last."""
        return (
            Path.cwd() / "agents",
            *self.settled_agents_dirs,
        )

    @property
    def settled_agents_dirs(self) -> tuple[Path, ...]:
        """The same without the folder one stands in, which perhaps somebody else wrote."""
        return (self.home / "agents", Path("/usr/lib/runloop/agents"), shipped("agents"))

    @property
    def openings_dirs(self) -> tuple[Path, ...]:
        """Where openings are looked for, first hit first; the shipped library last."""
        return (
            Path.cwd() / "openings",
            *self.settled_openings_dirs,
        )

    @property
    def settled_openings_dirs(self) -> tuple[Path, ...]:
        """The same without the folder one stands in, which perhaps somebody else wrote."""
        return (self.home / "openings", Path("/etc/runloop/openings"), shipped("openings"))


Shipped = Literal[
    "agents",
    "config-agent",
    "eval",
    "openings",
    "runner",
    "runner-js",
    "sdk/c",
    "sdk/js",
    "sdk/rust",
    "shell",
    "templates",
]
"""What came with this distribution: agents, openings, runners, and what authors of agents build with."""


def shipped(what: Shipped) -> Path:
    """Directory of what came with this distribution, in an installed wheel or in a checkout.

    Raises :class:`NotFoundError` when the installation is incomplete.
    """
    package = Path(__file__).parent
    checkout = package.parent.parent  # sdk/python/runloop -> sdk
    places = {
        "agents": (package / "_shipped" / "agents", checkout / "agents"),
        "config-agent": (package / "_shipped" / "config-agent", checkout / "config_agent"),
        "eval": (package / "_shipped" / "eval", checkout / "eval"),
        "runner": (package / "_shipped" / "runner", checkout / "runner"),
        "runner-js": (package / "_shipped" / "runner-js", checkout / "js" / "runner"),
        "openings": (package.parent / "openings" / "library", checkout.parent / "openings" / "library"),
        "sdk/c": (package / "_shipped" / "sdk" / "c", checkout / "c"),
        "sdk/js": (package / "_shipped" / "sdk" / "js", checkout / "js"),
        "sdk/rust": (package / "_shipped" / "sdk" / "rust", checkout / "rust"),
        "shell": (package / "_shipped" / "shell", checkout.parent / "packaging" / "shell"),
        "templates": (package / "_shipped" / "templates", checkout / "templates"),
    }[what]
    for place in places:
        if place.is_dir():
            return place
    raise NotFoundError(
        f"the shipped {what} are missing ({places[0]})",
        hint="install runloop again",
        code="config.shipped",
    )
