"""Places of secrets: what is put is found, what is unsafe is refused, nothing is lost on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from runloop.errors import FailedError, RefusedError, RunloopError
from runloopd.broker.vault import Place, places_of, private
from runloopd.broker.vault.age import AgeFile
from runloopd.broker.vault.plain import PlainFile
from runloopd.broker.vault.ring import Ring
from runloopd.broker.vault.systemd import Credentials
from runloopd.broker.vault.testing import Kept

CANARY = "sk-canary-places-77Zq"
NAME = "runloop/models/openai"


class Desktop:
    """A keyring backend, as the library finds one."""

    priority = 5

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, name: str) -> str | None:
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self.held[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        del self.held[service, name]


def age(folder: Path) -> AgeFile:
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    return AgeFile(folder / "secrets.age", identity=folder / "keys" / "secrets.key")


MAKERS: dict[str, Callable[[Path], Place]] = {
    "age": age,
    "keyring": lambda folder: Ring(backend=Desktop()),
    "memory": lambda folder: Kept(),
}


@pytest.mark.requirement("I6.secrets.2")
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_what_is_put_is_found_replaced_and_dropped(maker: Callable[[Path], Place], tmp_path: Path) -> None:
    place = maker(tmp_path)
    assert place.writable and place.get(NAME) is None and not place.drop(NAME)
    place.put(NAME, "one")
    place.put("runloop/mail/smtp", "other")
    place.put(NAME, "two")
    assert (place.get(NAME), place.get("runloop/mail/smtp")) == ("two", "other")
    assert place.drop(NAME) and place.get(NAME) is None
    assert place.get("runloop/mail/smtp") == "other"


# --- the encrypted file ---------------------------------------------------------------------------


def test_the_file_and_its_key_are_private_and_hold_no_value(tmp_path: Path) -> None:
    place = age(tmp_path)
    place.put(NAME, CANARY)
    for file in (tmp_path / "secrets.age", tmp_path / "keys" / "secrets.key"):
        assert file.stat().st_mode & 0o777 == 0o600
        assert CANARY.encode() not in file.read_bytes() and NAME.encode() not in file.read_bytes()
    assert list(place.names()) == [NAME]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "secrets.age"]


def test_another_process_finds_what_was_put_without_a_restart(tmp_path: Path) -> None:
    writer, reader = age(tmp_path), age(tmp_path)
    for value in ("one", "two"):
        writer.put(NAME, value)
        assert reader.get(NAME) == value


def test_a_file_without_its_key_is_refused_and_not_written_over(tmp_path: Path) -> None:
    place = age(tmp_path)
    place.put(NAME, CANARY)
    sealed = (tmp_path / "secrets.age").read_bytes()
    (tmp_path / "keys" / "secrets.key").unlink()
    for act in (lambda: place.get(NAME), lambda: place.put("runloop/a/b", "x"), lambda: place.drop(NAME)):
        with pytest.raises(RefusedError, match="key"):
            act()
    assert (tmp_path / "secrets.age").read_bytes() == sealed
    assert not (tmp_path / "keys" / "secrets.key").exists()


@pytest.mark.requirement("I6.secrets.2")
def test_a_damaged_file_is_refused_and_kept_for_whoever_can_mend_it(tmp_path: Path) -> None:
    place = age(tmp_path)
    place.put(NAME, CANARY)
    file = tmp_path / "secrets.age"
    whole = file.read_bytes()
    other = pyrage.x25519.Identity.generate().to_public()
    mine = pyrage.x25519.Identity.from_str(
        (tmp_path / "keys" / "secrets.key").read_text().strip()
    ).to_public()
    contents = [
        b"",
        whole[:-1],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        pyrage.encrypt(b"{}", [other]),
        pyrage.encrypt(CANARY.encode(), [mine]),
        pyrage.encrypt(b'{"version": 2, "secrets": {}}', [mine]),
        pyrage.encrypt(b'{"version": 1, "secrets": {"a": 7}}', [mine]),
    ]
    for content in contents:
        file.write_bytes(content)
        for act in (lambda: place.get(NAME), lambda: place.put(NAME, "new")):
            with pytest.raises(RefusedError) as caught:
                act()
            assert caught.value.named_code == "secret.file"
            assert CANARY not in repr(caught.value) + str(caught.value.__cause__)
        assert file.read_bytes() == content


def test_a_write_that_fails_leaves_the_old_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = age(tmp_path)
    place.put(NAME, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private.os, "fsync", full)
    with pytest.raises(FailedError, match="No space"):
        place.put(NAME, "new")
    monkeypatch.undo()
    assert place.get(NAME) == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "secrets.age"]


def test_secrets_put_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    place = age(tmp_path)
    threads = [threading.Thread(target=place.put, args=(f"runloop/a/{n}", f"value-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: place.get(name) for name in place.names()} == {
        f"runloop/a/{n}": f"value-{n}" for n in range(8)
    }


# --- files in general -----------------------------------------------------------------------------


def plain(folder: Path) -> tuple[Place, Path]:
    file = folder / "secrets.toml"
    file.write_text(f'"{NAME}" = "{CANARY}"\n')
    file.chmod(0o600)
    return PlainFile(file), file


def sealed(folder: Path) -> tuple[Place, Path]:
    place = age(folder)
    place.put(NAME, CANARY)
    return place, folder / "secrets.age"


def key(folder: Path) -> tuple[Place, Path]:
    place = age(folder)
    place.put(NAME, CANARY)
    return place, folder / "keys" / "secrets.key"


@pytest.mark.parametrize("made", [plain, sealed, key], ids=["toml", "age", "identity"])
def test_a_file_that_others_could_read_or_have_put_there_is_refused(
    made: Callable[[Path], tuple[Place, Path]], tmp_path: Path
) -> None:
    place, file = made(tmp_path)
    assert place.get(NAME) == CANARY
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(RefusedError, match="others can read"):
            place.get(NAME)
    file.chmod(0o600)
    elsewhere = file.with_suffix(".moved")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(RefusedError):
        place.get(NAME)
    file.unlink()
    file.mkdir()
    with pytest.raises(RefusedError, match="regular file"):
        place.get(NAME)
    file.rmdir()
    os.mkfifo(file)
    with pytest.raises(RefusedError, match="regular file"):
        place.get(NAME)  # and does not wait for a writer


def test_a_link_in_the_place_of_the_file_is_never_written_through(tmp_path: Path) -> None:
    place = age(tmp_path)
    target = tmp_path / "victim"
    target.write_text("mine")
    target.chmod(0o600)
    (tmp_path / "secrets.age").symlink_to(target)
    with pytest.raises(RefusedError):
        place.put(NAME, CANARY)
    private.write_private(tmp_path / "secrets.age", b"whole")
    assert target.read_text() == "mine" and not (tmp_path / "secrets.age").is_symlink()


def test_the_old_file_is_read_with_one_warning_and_never_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    place, file = plain(tmp_path)
    before = file.read_bytes()
    for _ in range(3):
        assert place.get(NAME) == CANARY
    said = capsys.readouterr()
    assert (said.out + said.err).count("secrets_in_clear") == 1 and CANARY not in said.out + said.err
    for act in (lambda: place.put(NAME, "x"), lambda: place.drop(NAME)):
        with pytest.raises(RefusedError) as caught:
            act()
        assert "rlp secret import" in (caught.value.hint or "")
    assert file.read_bytes() == before


def test_an_old_file_that_is_not_toml_is_refused_without_its_text(tmp_path: Path) -> None:
    place, file = plain(tmp_path)
    for content in (f'"{NAME}" = {CANARY}'.encode(), b"\xff\xfe", b'"runloop/models/openai" = 7'):
        file.write_bytes(content)
        with pytest.raises(RefusedError) as caught:
            place.get(NAME)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert CANARY not in str(chain)
            chain = chain.__cause__


# --- systemd --------------------------------------------------------------------------------------


@pytest.mark.requirement("K5")
def test_credentials_of_systemd_are_found_by_their_dotted_names_and_are_fixed(tmp_path: Path) -> None:
    (tmp_path / "runloop.models.open.ai").write_text(f"{CANARY}\n")
    (tmp_path / "runloop.models.open.ai").chmod(0o440)  # as systemd makes them for a service with a user
    (tmp_path / "another").write_text("x")
    place = Credentials(tmp_path)
    assert list(place.names()) == ["runloop/models/open.ai"]
    assert place.get("runloop/models/open.ai") == f"{CANARY}\n"
    assert place.get("runloop/models/other") is None and not place.writable
    with pytest.raises(RefusedError):
        place.put("runloop/models/open.ai", "x")
    (tmp_path / "runloop.models.open.ai").chmod(0o444)
    with pytest.raises(RefusedError, match="others can read"):
        place.get("runloop/models/open.ai")


def test_the_places_of_a_home_are_asked_in_the_order_that_is_written_down(tmp_path: Path) -> None:
    plain_home = places_of({}, home=tmp_path, keys_dir=tmp_path / "keys")
    assert [place.name for place in plain_home] == ["keyring", "age", "file"]
    handed = places_of({"CREDENTIALS_DIRECTORY": "/run/c"}, home=tmp_path, keys_dir=tmp_path / "keys")
    assert [place.name for place in handed] == ["systemd", "keyring", "age", "file"]


# --- the keyring ----------------------------------------------------------------------------------


class Angry(Desktop):
    def get_password(self, service: str, name: str) -> str | None:
        raise RuntimeError(f"no D-Bus for {CANARY}")

    def set_password(self, service: str, name: str, value: str) -> None:
        raise RuntimeError(f"cannot store {value}")


class Locked(Desktop):
    """Waits for a person to unlock it, and nobody is there."""

    def __init__(self) -> None:
        super().__init__()
        self.unlocked = threading.Event()

    def get_password(self, service: str, name: str) -> str | None:
        self.unlocked.wait(60)
        return None


class InClear(Desktop):
    priority = 0.5  # type: ignore[assignment]  # as keyrings.alt says of its plaintext backend


@pytest.mark.parametrize("backend", [Angry(), InClear(), object()], ids=["angry", "in_clear", "no_backend"])
def test_an_unusable_keyring_is_one_without_the_secret(backend: Any) -> None:
    ring = Ring(backend=backend)
    assert ring.get(NAME) is None and not ring.drop(NAME)
    with pytest.raises(RunloopError) as caught:
        ring.put(NAME, CANARY)
    assert CANARY not in repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)


def test_a_keyring_that_waits_for_a_person_does_not_hold_up_the_daemon() -> None:
    backend = Locked()
    try:
        assert Ring(backend=backend, patience_s=0.05).get(NAME) is None
    finally:
        backend.unlocked.set()


def test_a_keyring_that_forgets_at_once_is_told_apart_from_one_that_keeps() -> None:
    class Leaky(Desktop):
        def set_password(self, service: str, name: str, value: str) -> None:
            pass

    with pytest.raises(FailedError, match="give back"):
        Ring(backend=Leaky()).put(NAME, CANARY)
