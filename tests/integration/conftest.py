"""What several of these modules share: a container engine of their own, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runloopd.broker.tools.container import Container
from tests.engine import TestEngine, engine_in


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    with TemporaryDirectory(prefix="runloop-engine-", dir="/dev/shm", ignore_cleanup_errors=True) as folder:
        # RUNLOOP_TEST_ENGINE=docker: by a user with a rootless docker, whose images these tests add to.
        made = engine_in(Path(folder), os.environ.get("RUNLOOP_TEST_ENGINE", "podman"))
        if isinstance(made, str):
            pytest.skip(made)
        yield made
        made.clear()


@pytest.fixture(scope="session")
def tried(engine: TestEngine) -> Container:
    made = Container([], door=engine.path.parent, image=engine.image, engine=str(engine.path))
    made.layers().require()
    return made
