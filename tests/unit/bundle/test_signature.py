"""Signatures are Ed25519 over DSSE's encoding; others can check them; keys are their owner's alone."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.bundle.keyfile import DEV_KEY, KeyFileError, dev_key, make_key, read_key
from runloop.bundle.signature import (
    PAYLOAD_TYPE,
    Envelope,
    EnvelopeError,
    PublicKey,
    Signature,
    SigningKey,
    pae,
)
from runloop.bundle.trust import parse_trust
from runloop.errors import ConflictError, FailedError, NotFoundError, UsageError
from tests.unit.bundle.made import ACME, EVIL, signed

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl (Debian: openssl)")


def test_the_encoding_is_the_one_of_dsse() -> None:
    # The example of the DSSE specification (protocol.md).
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.text("ab 1", max_size=4), st.binary(max_size=4), st.text("ab 1", max_size=4), st.binary(max_size=4))
def test_two_payloads_never_share_signed_bytes(kind: str, body: bytes, other: str, more: bytes) -> None:
    assert (pae(kind, body) == pae(other, more)) == ((kind, body) == (other, more))


@openssl
def test_openssl_agrees_with_a_signature_of_ours(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key.pem")
    envelope = Envelope(payload=b'{"a":1}').signed(key)
    assert envelope.signature is not None
    (tmp_path / "message").write_bytes(pae(PAYLOAD_TYPE, envelope.payload))
    (tmp_path / "signature").write_bytes(envelope.signature.bytes)
    subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"], cwd=tmp_path, check=True
    )
    verify = [
        *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin"),
        *("-in", "message", "-sigfile", "signature"),
    ]
    assert subprocess.run(verify, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "message").write_bytes(pae(PAYLOAD_TYPE, b'{"a":2}'))
    assert subprocess.run(verify, cwd=tmp_path, check=False, capture_output=True).returncode != 0


@openssl
def test_a_key_openssl_made_signs_here(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    path.chmod(0o600)
    key = read_key(path)
    (tmp_path / "message").write_bytes(b"hello")
    sign = ["openssl", "pkeyutl", "-sign", "-inkey", str(path), "-rawin", "-in", "message"]
    made = subprocess.run(sign, cwd=tmp_path, check=True, capture_output=True).stdout
    assert key.sign(b"hello") == made
    assert key.public.holds(made, b"hello")


def test_a_key_is_named_by_its_hash_and_written_as_base64() -> None:
    key = PublicKey(bytes(32))
    assert str(key) == "ed25519:" + base64.b64encode(bytes(32)).decode()
    assert PublicKey.parse(str(key)) == key
    # sha256 of 32 zeros, as `head -c32 /dev/zero | sha256sum` has it.
    assert key.key_id == "ed25519:66687aadf862bd776c8fc18b8e9f8e20"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        "rsa:" + "A" * 44,
        "ed25519:AAAA",
        "ed25519:" + "A" * 43 + "B=",
        "ed25519:" + "A" * 44 + "\n",
    ],
)
def test_another_spelling_of_a_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        PublicKey.parse(text)


# --- envelopes ------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_an_envelope_is_read_back_and_holds(payload: bytes) -> None:
    made = Envelope(payload=payload).signed(ACME)
    assert Envelope.from_line(made.to_line()) == made
    assert made.is_signed_by(ACME.public)
    assert not made.is_signed_by(EVIL.public)
    assert not Envelope(payload=payload).is_signed_by(ACME.public)


def test_a_signature_under_the_name_of_another_key_does_not_hold() -> None:
    made = Envelope(payload=b"x").signed(EVIL)
    assert made.signature is not None
    forged = Envelope(payload=b"x", signature=Signature(key_id=ACME.key_id, bytes=made.signature.bytes))
    assert not forged.is_signed_by(ACME.public)
    assert not forged.is_signed_by(EVIL.public)


def test_the_other_half_of_a_signature_is_no_second_signature() -> None:
    """Ed25519 with S + L: the same point, another spelling."""
    order = 2**252 + 27742317777372353535851937790883648493
    made = ACME.sign(b"x")
    moved = made[:32] + (int.from_bytes(made[32:], "little") + order).to_bytes(32, "little")
    assert ACME.public.holds(made, b"x")
    assert not ACME.public.holds(moved, b"x")


GOOD = json.loads(Envelope(payload=b"{}").signed(ACME).to_line())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"not json",
        b"[" * 5_000,
        json.dumps(GOOD).encode(),  # spaces
        json.dumps({**GOOD, "extra": 1}, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps({**GOOD, "payloadType": "text/plain"}, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps({**GOOD, "payload": "e30"}, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps({**GOOD, "payload": "e31="}, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps(
            {**GOOD, "signatures": GOOD["signatures"] * 2}, separators=(",", ":"), sort_keys=True
        ).encode(),
        json.dumps({**GOOD, "signatures": [{"sig": "AA=="}]}, separators=(",", ":"), sort_keys=True).encode(),
        b"{" + json.dumps(GOOD, separators=(",", ":"), sort_keys=True).encode()[1:-1] + b',"payload":"e30="}',
        b"x" * 300_000,
    ],
)
def test_an_envelope_has_one_form(line: bytes) -> None:
    with pytest.raises(EnvelopeError):
        Envelope.from_line(line)


# --- keys on disk ---------------------------------------------------------------------------------


def test_a_fresh_key_is_its_owners_alone_and_signs_the_same_next_time(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path).sign(b"x") == made.sign(b"x")
    with pytest.raises(ConflictError):
        make_key(path)


def test_the_development_key_is_made_once_even_when_many_ask_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: dev_key(tmp_path / "keys").key_id, range(24)))
    assert len(set(made)) == 1
    assert (tmp_path / "keys" / DEV_KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_no_key_is_no_unsafe_key(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_key(tmp_path / "none")
    with pytest.raises(FailedError):
        make_key(tmp_path / "no" / "folder")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_key_others_could_read_is_not_used(tmp_path: Path, mode: int) -> None:
    make_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(KeyFileError) as refused:
        read_key(tmp_path / "key")
    assert str(refused.value.hint).startswith("chmod")


def test_a_key_behind_a_link_is_not_used(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    (tmp_path / "soft").symlink_to(tmp_path / "key")
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "soft")
    os.link(tmp_path / "key", tmp_path / "hard")
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "key")


def test_what_is_no_ed25519_key_is_not_used(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, data in (("noise", b"not a key"), ("empty", b""), ("other", other)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(KeyFileError):
            read_key(tmp_path / name)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "fifo")


def test_a_key_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(tmp_path / "key")
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "key")


def test_a_development_key_in_a_folder_that_is_a_link_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        dev_key(tmp_path / "keys")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_signing_key_shows_no_secret_and_does_not_travel() -> None:
    assert repr(ACME) == f"SigningKey({ACME.key_id})"
    with pytest.raises(TypeError):
        pickle.dumps(SigningKey.generate())


@pytest.mark.requirement("I3.bundle.3")
@openssl
def test_the_documented_commands_check_a_bundle_without_us(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/howto/trust.md").read_text(encoding="utf-8")
    script = page.partition("```sh\n")[2].partition("```")[0]
    env = {**os.environ, "BUNDLE": "one.rlb", "KEY": str(ACME.public)}

    def check(data: bytes, **change: str) -> int:
        (tmp_path / "one.rlb").write_bytes(data)
        command = ["bash", "-euc", script]
        return subprocess.run(command, cwd=tmp_path, env={**env, **change}, check=False).returncode

    assert check(signed()) == 0
    assert check(signed(), KEY=str(EVIL.public)) != 0
    assert check(signed().replace(b"return {'out': 1}", b"return {'out': 2}")) != 0


def test_the_documented_trust_file_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs/howto/trust.md").read_text(encoding="utf-8")
    trust = parse_trust(page.partition("```toml\n")[2].partition("```")[0])
    assert list(trust.anchors) == ["acme"]
    assert len(trust.revoked) == 2
