"""The build steps of the package, loaded as what they are: files beside ``debian/rules``, in no package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEBIAN = Path(__file__).parents[3] / "packaging" / "deb" / "debian"


@pytest.fixture(scope="module")
def step() -> Callable[[str], ModuleType]:
    """Loads a step by name."""

    def loaded(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"debian_{name}", DEBIAN / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return loaded
