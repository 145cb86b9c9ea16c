from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from runloop.testing import ManualClock
from tests.memory import quick


class Store:
    """A ledger and views in one folder, opened as a test asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events_db = folder / "events.db"
        self.views_db = folder / "views.db"
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.public_key = self.key.public_key()
        self.clock = ManualClock()
        self._open: list[Any] = []

    def ledger(self, **more: Any) -> Ledger:
        made = Ledger.open(self.events_db, **({"signing_key": self.key, "clock": self.clock} | more))
        return self._kept(made)

    def reader(self) -> Reader:
        return self._kept(Reader(self.events_db))

    def materializer(self) -> Materializer:
        return self._kept(Materializer.open(self.views_db, self.events_db))

    def knowledge(self, **more: Any) -> Knowledge:
        return self._kept(Knowledge(self.views_db, self.reader(), **more))

    def holding(self, *drafts: Any, blobs: Any = ()) -> Store:
        """State facts, fold them, and close everything."""
        with self.ledger() as ledger:
            ledger.append(drafts, blobs)
        with self.materializer() as materializer:
            materializer.catch_up()
        return self

    def close(self) -> None:
        for opened in reversed(self._open):
            opened.close()

    def _kept(self, opened: Any) -> Any:
        self._open.append(opened)
        return opened


@pytest.fixture
def on_disk() -> None:
    """Asked for by tests beside a writer that nothing but the disk holds back."""


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As pytest's, but in memory."""
    if "on_disk" in request.fixturenames:
        yield tmp_path_factory.mktemp("pog")
        return
    with TemporaryDirectory(prefix="pog-", dir=quick(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "pog")
    yield made
    made.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    made: list[Store] = []

    def make(name: str) -> Store:
        made.append(Store(tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        each.close()
