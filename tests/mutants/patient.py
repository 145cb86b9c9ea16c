"""A pytest plugin: no test is red because the machine is busy; what is noticed must be the guard."""

from __future__ import annotations

import hypothesis


def pytest_configure() -> None:
    """After tests/conftest.py has chosen its profile: the same examples, without a deadline for each."""
    hypothesis.settings.register_profile("patient", derandomize=True, deadline=None)
    hypothesis.settings.load_profile("patient")
