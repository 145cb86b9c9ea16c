"""The store over its places: who wins, where a secret goes, and moving the old file over."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError
from runloopd.broker.secrets import SecretRef, SecretStore, check_name
from runloopd.broker.vault.plain import PlainFile
from runloopd.broker.vault.testing import Kept

NAME = "runloop/models/openai"


def old_file(folder: Path, text: str) -> PlainFile:
    file = folder / "secrets.toml"
    file.write_text(text)
    file.chmod(0o600)
    return PlainFile(file)


def test_a_secret_lies_in_one_place_that_can_be_written() -> None:
    first, second = Kept("first"), Kept("second", **{NAME: "old"})
    store = SecretStore(environ={}, places=[first, second])
    assert store.home_of(NAME) == "first"
    store.put(NAME, "new", "first")
    assert first.secrets == {NAME: "new"} and second.secrets == {}
    store.put(NAME, "newer", store.home_of(NAME, "second"))
    assert first.secrets == {} and store.find(SecretRef(name=NAME)).reveal() == "newer"
    assert store.drop(NAME) == ["second"] and store.place_of(NAME) is None


def test_what_a_fixed_place_sets_is_not_set_behind_its_back() -> None:
    fixed, able = Kept("systemd", writable=False, **{NAME: "theirs"}), Kept("age")
    store = SecretStore(environ={}, places=[fixed, able])
    with pytest.raises(ConflictError) as caught:
        store.home_of(NAME)
    assert caught.value.named_code == "secret.fixed"
    assert store.home_of("runloop/models/other") == "age"


@pytest.mark.parametrize("wanted", ["systemd", "nowhere"])
def test_a_place_that_takes_nothing_is_refused_with_those_that_do(wanted: str) -> None:
    store = SecretStore(environ={}, places=[Kept("systemd", writable=False), Kept("age")])
    with pytest.raises(UsageError) as caught:
        store.home_of(NAME, wanted)
    assert "age" in (caught.value.hint or "")


def test_a_secret_that_is_nowhere_cannot_be_removed() -> None:
    with pytest.raises(NotFoundError):
        SecretStore(environ={}, places=[Kept()]).drop(NAME)


@pytest.mark.requirement("I6.secrets.3")
def test_the_old_file_is_moved_over_but_for_what_was_set_since(tmp_path: Path) -> None:
    age = Kept("age", **{NAME: "set-since"})
    old = old_file(tmp_path, f'"{NAME}" = "old"\n"runloop/mail/smtp" = " kept \\n"\n')
    store = SecretStore(environ={}, places=[age, old])
    assert store.move_over("age") == ["runloop/mail/smtp", NAME]
    assert age.secrets == {NAME: "set-since", "runloop/mail/smtp": "kept"}
    assert not (tmp_path / "secrets.toml").exists()
    assert store.move_over("age") == []


@pytest.mark.requirement("I6.secrets.3")
@pytest.mark.parametrize(
    "line",
    ['"no-name" = "x"', '"runloop/a/n" = 7', '"runloop/a/n" = "two\\nlines"', "[table]\nkey = 'x'"],
    ids=["name", "number", "lines", "table"],
)
def test_an_old_file_with_one_bad_line_is_kept_whole_and_nothing_is_moved(tmp_path: Path, line: str) -> None:
    text = f'"{NAME}" = "good"\n{line}\n'
    age, old = Kept("age"), old_file(tmp_path, text)
    with pytest.raises(RunloopError):
        SecretStore(environ={}, places=[age, old]).move_over("age")
    assert age.secrets == {} and (tmp_path / "secrets.toml").read_text() == text


@pytest.mark.requirement("I6.secrets.3")
def test_an_old_file_stays_until_its_last_secret_is_kept_elsewhere(tmp_path: Path) -> None:
    class Full(Kept):
        def put(self, name: str, value: str) -> None:
            if self.secrets:
                raise UsageError("no room", code="secret.place")
            super().put(name, value)

    age, old = Full("age"), old_file(tmp_path, '"runloop/a/a" = "1"\n"runloop/a/b" = "2"\n')
    store = SecretStore(environ={}, places=[age, old])
    with pytest.raises(UsageError):
        store.move_over("age")
    assert [store.find(SecretRef(name=f"runloop/a/{n}")).reveal() for n in "ab"] == ["1", "2"]


@pytest.mark.parametrize(
    "name",
    ["", "runloop", "runloop/a", "a/b/c", "runloop/A/b", "runloop/a/b/c", "runloop/a/\n", "runloop/a/b\n"],
)
def test_a_name_has_three_parts(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.named_code == "secret.name"
