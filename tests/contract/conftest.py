"""Parts that the contract tests of providers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runloop.clock import Clock
from runloop.config import Models, Price, Provider
from runloop.ops import ModelComplete, ModelMessage
from runloop.testing import ManualClock
from runloopd.broker.models import ModelBroker, Patience
from runloopd.broker.ports import Budget
from runloopd.broker.providers.discovery import LocalServer
from runloopd.broker.providers.http import Http, HttpLimits
from runloopd.broker.secrets import SecretStore

CANARY = "sk-canary-7f3Q/x+9ZkLmW2b8"
PRICE = Price(input_micro_usd_per_mtok=3_000_000, output_micro_usd_per_mtok=15_000_000, version="2026-11")
NOWHERE = "http://127.0.0.1:9"


class RestlessClock(ManualClock):
    """A clock on which every sleep is over at once, and noted."""

    def __init__(self) -> None:
        super().__init__()
        self.slept_ms: list[int] = []

    async def sleep_until(self, due_ms: int) -> None:
        self.slept_ms.append(due_ms - self.now_ms())
        self.advance(max(0, due_ms - self.now_ms()))
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> RestlessClock:
    return RestlessClock()


BrokerMaker = Callable[..., ModelBroker]


@pytest.fixture
async def broker(clock: RestlessClock) -> AsyncIterator[BrokerMaker]:
    """Makes brokers; closes them at the end."""
    made: list[ModelBroker] = []

    def make(*providers: Provider, ollama_url: str = NOWHERE, **settings: Any) -> ModelBroker:
        limits = settings.pop("limits", HttpLimits(connect_ms=2_000, idle_ms=5_000))
        environ = settings.pop("environ", {"FAKE_KEY": CANARY})
        patience = settings.pop("patience", Patience(detect_ms=2_000))
        settings_servers = settings.pop("servers", ())
        home = settings.pop("home", None)
        config = Models(
            providers={provider.name: provider for provider in providers},
            detect=settings.pop("detect", "none" if ollama_url == NOWHERE else "ollama"),
            **settings,
        )
        made.append(
            ModelBroker(
                config,
                secrets=SecretStore(environ=environ),
                clock=clock,
                jitter=lambda: 0.5,
                patience=patience,
                http=Http(limits),
                servers=settings_servers or (LocalServer(name="ollama", kind="ollama", url=ollama_url),),
                home=home,
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()


def provider(url: str, kind: str = "openai", **fields: Any) -> Provider:
    values: dict[str, Any] = {
        "name": "main",
        "kind": kind,
        "base_url": url,
        "model": "fake-1",
        "api_key_env": "FAKE_KEY",
        "timeout_ms": 20_000,
    }
    return Provider(**(values | fields))


def ask(text: str = "Say hello.", **fields: Any) -> ModelComplete:
    messages = [
        ModelMessage(role="system", content="Be brief."),
        ModelMessage(role="user", content=text),
    ]
    return ModelComplete(messages=messages, **({"max_tokens": 100} | fields))


def budget(clock: Clock, **fields: Any) -> Budget:
    values: dict[str, Any] = {
        "micro_usd": 1_000_000,
        "tokens": 100_000,
        "deadline_ms": clock.now_ms() + 60_000,
        "permits": lambda target: True,
    }
    return Budget(**(values | fields))
