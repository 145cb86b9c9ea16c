"""What several of these modules share: a container engine of their own, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runloopd.broker.tools.container import Container
from tests.engine import TestEngine, engine_in


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    with TemporaryDirectory(prefix="runloop-engine-", dir="/dev/shm", ignore_cleanup_errors=True) as folder:
        made = engine_in(Path(folder))
        if isinstance(made, str):
            pytest.skip(made)
        yield made
        made.clear()


@pytest.fixture(scope="session")
def tried(engine: TestEngine) -> Container:
    made = Container([], door=engine.path.parent, image=engine.image, engine=str(engine.path))
    made.layers().require()
    return made
