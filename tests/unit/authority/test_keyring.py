"""Keys: made once, private, never shown."""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runloopd.authority.keyring import KEY_BYTES, Keyring, KeyringError

FILES = ("cache.key", "ledger.key", "operator.key", "token.key")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "keys"
    Keyring.open(path)
    return path


def test_missing_keys_are_made_private_and_read_back(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = Keyring.open(tmp_path / "keys")
    finally:
        os.umask(old)
    read = Keyring.open(tmp_path / "keys")
    assert made.token_key == read.token_key
    assert made.ledger_key.private_bytes_raw() == read.ledger_key.private_bytes_raw()
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == list(FILES)
    for name in FILES:
        facts = (tmp_path / "keys" / name).stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_size, facts.st_nlink) == (0o600, KEY_BYTES, 1)


def test_every_key_is_another(keys: Path) -> None:
    assert len({(keys / name).read_bytes() for name in FILES}) == 4
    ring = Keyring.open(keys)
    assert ring.operator_credential == (keys / "operator.key").read_bytes()
    assert ring.cache_key == (keys / "cache.key").read_bytes()
    assert len(ring.token_public) == 32


def test_the_randomness_is_the_one_that_is_given(tmp_path: Path) -> None:
    ring = Keyring.open(tmp_path / "keys", entropy=lambda n: b"\x07" * n)
    assert ring.token_key == b"\x07" * 32


def damage_mode(path: Path) -> None:
    path.chmod(0o640)


def damage_link(path: Path) -> None:
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)


def damage_hard_link(path: Path) -> None:
    os.link(path, path.with_suffix(".second"))


def damage_length(path: Path) -> None:
    path.write_bytes(b"short")


def damage_longer(path: Path) -> None:
    path.write_bytes(b"x" * 33)


def damage_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o600)


def damage_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        damage_mode,
        damage_link,
        damage_hard_link,
        damage_length,
        damage_longer,
        damage_directory,
        damage_fifo,
    ],
)
def test_a_key_that_somebody_else_could_know_or_replace_is_refused(
    keys: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(keys / name)
    with pytest.raises(KeyringError) as caught:
        Keyring.open(keys)
    assert caught.value.data["path"] == str(keys / name)
    assert caught.value.hint


def test_a_directory_that_others_may_enter_is_refused_with_the_command_to_type(keys: Path) -> None:
    keys.chmod(0o755)
    with pytest.raises(KeyringError, match="0755") as caught:
        Keyring.open(keys)
    assert caught.value.hint == f"chmod 0700 {keys}"


def test_a_symlinked_directory_is_refused(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(keys)
    with pytest.raises(KeyringError):
        Keyring.open(tmp_path / "elsewhere")


def test_a_file_in_the_directorys_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with pytest.raises(KeyringError):
        Keyring.open(tmp_path / "keys")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(keys: Path) -> None:
    os.chown(keys / "token.key", 12345, -1)
    with pytest.raises(KeyringError, match="12345"):
        Keyring.open(keys)


def test_openers_that_race_agree_on_the_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: Keyring.open(tmp_path / "keys"), range(8)))
    assert len({ring.token_key for ring in rings}) == 1
    assert len({ring.operator_credential for ring in rings}) == 1


def test_a_leftover_of_an_interrupted_start_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / ".token.key.new").write_bytes(b"half")
    assert len(Keyring.open(tmp_path / "keys").token_key) == 32


def test_a_keyring_shows_and_copies_no_key(keys: Path) -> None:
    ring = Keyring.open(keys)
    assert ring.token_key.hex() not in repr(ring)
    assert repr(ring.token_key) not in repr(ring)
    with pytest.raises(TypeError):
        pickle.dumps(ring)
