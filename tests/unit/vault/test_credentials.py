"""Secrets that systemd hands over as a document of many: read whole or refused whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.config import Paths
from runloop.errors import RefusedError, RunloopError
from runloopd.assembly.ground import own_places
from runloopd.broker.providers.files import Files
from runloopd.broker.providers.walk import place
from runloopd.broker.vault.systemd import Credentials

CANARY = "canary-5b21"


def holding(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o400)
    return file


@pytest.mark.requirement("K5")
def test_a_document_holds_many_and_the_encrypted_one_comes_first(tmp_path: Path) -> None:
    holding(tmp_path, "runloop.secrets", f'"runloop/models/a" = "plain"\n"runloop/mail/b" = "{CANARY}"\n')
    holding(tmp_path, "runloop.sealed", '"runloop/models/a" = "sealed"\n')
    holding(tmp_path, "runloop.models.c", "alone")
    found = Credentials(tmp_path)
    assert sorted(found.names()) == ["runloop/mail/b", "runloop/models/a", "runloop/models/c"]
    assert found.get("runloop/models/a") == "sealed"
    assert found.get("runloop/mail/b") == CANARY
    assert found.get("runloop/models/c") == "alone"
    assert found.get("runloop/models/d") is None


@pytest.mark.parametrize(
    "text",
    [
        f"{CANARY} is no TOML",
        f'"runloop/models/a" = ["{CANARY}"]\n',
        f'[table]\nx = "{CANARY}"\n',
        "\xff\x00",
    ],
    ids=["prose", "list", "table", "bytes"],
)
def test_a_damaged_document_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    holding(tmp_path, "runloop.secrets", text)
    with pytest.raises(RefusedError) as caught:
        Credentials(tmp_path).get("runloop/models/a")
    assert CANARY not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_a_document_that_others_can_read_is_refused(tmp_path: Path) -> None:
    holding(tmp_path, "runloop.secrets", '"runloop/models/a" = "x"\n').chmod(0o444)
    with pytest.raises(RefusedError, match="others can read"):
        Credentials(tmp_path).get("runloop/models/a")


@pytest.mark.requirement("K5", "K9")
async def test_no_grant_of_files_reaches_credentials_or_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed, home = tmp_path / "credentials", tmp_path / "home"
    handed.mkdir()
    (home / "keys").mkdir(parents=True)
    secret = holding(handed, "runloop.secrets", CANARY)
    key = holding(home / "keys", "ledger.key", CANARY)
    mine = holding(tmp_path, "mine.txt", "mine")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    places = own_places(Paths.resolve({}, home=home))
    assert handed in places and home in places
    files = Files(places)
    found = await files.read(place(str(mine), "/"), 0, 100)
    assert found.data == b"mine"
    for out_of_reach in (secret, key):
        with pytest.raises(RunloopError):
            await files.read(place(str(out_of_reach), "/"), 0, 100)
    await files.close()
