"""The shipped agents, loaded from their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.guest_testing import AgentUnderTest, load_agent

AGENTS = Path(__file__).parents[3] / "sdk" / "agents"


@pytest.fixture
def assistant() -> AgentUnderTest:
    return load_agent(AGENTS / "assistant")


@pytest.fixture
def contact_resolver() -> AgentUnderTest:
    return load_agent(AGENTS / "contact_resolver")


@pytest.fixture
def context_gatherer() -> AgentUnderTest:
    return load_agent(AGENTS / "context_gatherer")


@pytest.fixture
def writer() -> AgentUnderTest:
    return load_agent(AGENTS / "writer")


@pytest.fixture
def critic() -> AgentUnderTest:
    return load_agent(AGENTS / "critic")


@pytest.fixture
def mailer() -> AgentUnderTest:
    return load_agent(AGENTS / "mailer")
