"""Agents of others on this machine: the installed commands, a real daemon, real guests, real files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from runloop.approval import DECISION_TYPE
from runloop.bundle.keyfile import dev_key
from runloop.client import BlockingClient
from runloop.errors import RefusedError
from runloop.events import NodeFinished
from runloop.rmp import topics
from tests.bundles import ACME, DAY_MS, EVE, Built, build, index_of, trust_toml
from tests.e2e.test_attacks import connect
from tests.e2e.test_crashes import Mortal, wait_gone_daemon
from tests.e2e.test_docs import DOCS, Reader
from tests.home import Done, Home, wait_until

FAR_MS = 4_000_000_000_000
"""In the year 2096: an index that does not expire during the test."""


def trust(home: Home, text: str = trust_toml()) -> None:
    file = home.path / "trust.toml"
    file.write_text(text)
    file.chmod(0o600)


def hand(home: Home, built: Built, *options: str, command: str = "install") -> Done:
    path = built.write(home.path / "downloads")
    return home.rlp("agent", command, str(path), *options, timeout=120)


def waiting(home: Home) -> list[dict[str, Any]]:
    return list(home.rlp("approvals", "--json").check().ndjson)


def approve(home: Home) -> Done:
    (one,) = waiting(home)
    return home.allow(str(one["approval"]))


def install(home: Home, built: Built, *options: str) -> None:
    hand(home, built, *options).check(5)
    approve(home).check()


def _refuse_every_easy_yes(home: Home, asked: dict[str, Any]) -> None:
    """Without a terminal: no flag, no word on stdin and no frame of our own stands in for the digest."""
    name, digest = str(asked["approval"]), str(asked["action_digest"])
    for said in ((), ("--yes",), ("--wait", "--note", "acme_echo")):
        shown = home.rlp("approve", name, *said, stdin="acme_echo\nacme\ny\n").check(4)
        assert f"rlp approve {name} --confirm {digest}" in shown.err
    for wrong in (digest[:32], "0" * 64, "acme_echo", ""):
        home.rlp("approve", name, "--confirm", wrong).check(8)
    with connect(home, operator=True) as raw:
        for more in ({}, {"confirm": "yes"}, {"confirm": digest[:16]}, {"note": digest}):
            plain = {"v": 1, "approval": name, "action_digest": digest, "decision": "approve", **more}
            with pytest.raises(RefusedError) as caught:
                raw.request(topics.ACTION_DECISION, DECISION_TYPE, plain, timeout_s=10.0)
            assert caught.value.named_code == "approval.unconfirmed"
    assert [one["state"] for one in waiting(home)] == ["open"]


def opening(home: Home, name: str = "acme_echo") -> Path:
    path = home.path / "echo.yaml"
    path.write_text(f'version: 0\nname: echo\nnodes:\n  - {{id: say, use: "agent:{name}"}}\n')
    return path


def said(home: Home) -> str:
    """What the agent said in the newest run."""
    ends = [event.payload for event in home.events("node.finished")]
    last = ends[-1]
    assert isinstance(last, NodeFinished)
    assert last.output is not None, last.error
    return str(last.output["ports"]["word"][0])


@pytest.mark.requirement("C8")
def test_without_a_terminal_an_install_parks_and_rlp_approve_finishes_it(home: Home) -> None:
    trust(home)
    built = build(ops=["time.now"], caps="time = true\n")
    parked = hand(home, built).check(5)
    (one,) = waiting(home)
    assert f"rlp approve {one['approval']}" in parked.err
    assert home.rlp("run", str(opening(home)), "--no-input").code != 0, "nothing runs before the yes"
    _refuse_every_easy_yes(home, one)
    done = approve(home).check()
    assert "acme_echo 1.0.0 is installed; new runs use it" in done.err
    for shown in ("acme_echo", "1.0.0", "acme", ACME.key_id, built.digest, "time"):
        assert shown in done.err
    home.rlp("run", str(opening(home)), "--no-input").check()
    assert said(home) == "acme_echo 1.0.0"
    home.rlp("verify").check()


@pytest.mark.requirement("I3.install.2")
def test_an_upgrade_shows_its_new_rights_runs_at_once_and_is_rolled_back(home: Home) -> None:
    trust(home)
    install(home, build("1.0.0"))
    home.rlp("run", str(opening(home)), "--no-input").check()
    hand(home, build("1.1.0", ops=["kb.search"], caps='kb_read = ["notes"]\n'), command="upgrade").check(5)
    shown = approve(home).check()
    assert "asks for, not asked before" in shown.err
    assert 'kb_read "notes"' in shown.err
    assert "installed in place of 1.0.0" in shown.err
    home.rlp("run", str(opening(home)), "--no-input").check()
    assert said(home) == "acme_echo 1.1.0"
    back = home.rlp("agent", "rollback", "acme_echo").check()
    assert "back at 1.0.0 (was 1.1.0)" in back.err
    home.rlp("run", str(opening(home)), "--no-input").check()
    assert said(home) == "acme_echo 1.0.0"
    rows = home.rlp(
        "kb", "query", "SELECT version, state, how FROM agents ORDER BY version", "--json"
    ).check()
    assert [(row["version"], row["state"], row["how"]) for row in rows.ndjson] == [
        ("1.0.0", "current", "rollback"),
        ("1.1.0", "kept", "upgrade"),
    ]
    home.rlp("verify").check()


def test_an_old_run_replays_with_the_agent_it_began_with(home: Home) -> None:
    trust(home)
    install(home, build("1.0.0"))
    home.rlp("run", str(opening(home)), "--no-input").check()
    run = str(home.rlp("runs", "--json").check().ndjson[0]["run"])
    install(home, build("1.1.0"))
    home.rlp("agent", "remove", "acme_echo").check()
    home.rlp("replay", run).check()
    home.rlp("run", str(opening(home)), "--no-input").check(2)


def test_at_a_terminal_the_name_must_be_typed_and_a_plain_yes_installs_nothing(home: Home) -> None:
    trust(home)
    path = build().write(home.path / "downloads")
    parked = home.terminal("agent", "install", str(path), answers={r"type acme_echo": "y\n"}, timeout=120)
    parked.check(5)
    assert home.events("agent.installed") == []
    (one,) = waiting(home)
    for flags in ((), ("--yes",)):  # nor is there an easier word for it behind another command
        still = home.terminal("approve", str(one["approval"]), *flags, answers={r"type acme_echo": "y\n"})
        still.check(5)
    assert home.events("agent.installed") == []
    done = home.terminal(
        "agent", "install", str(path), answers={r"type acme_echo": "acme_echo\n"}, timeout=120
    )
    done.check(0)
    assert "is installed" in done.out
    assert len(home.events("agent.installed")) == 1


@pytest.mark.requirement("C8")
def test_a_trust_anchor_needs_a_person_too_and_revoking_does_not(home: Home) -> None:
    key = str(ACME.public)
    hand(home, build()).check(4)
    home.rlp("trust", "add", "acme", key, "--name", "acme_*").check(5)
    assert not (home.path / "trust.toml").exists()
    hand(home, build()).check(4)
    _refuse_every_easy_yes(home, waiting(home)[0])
    assert not (home.path / "trust.toml").exists()
    approve(home).check()
    assert home.rlp("trust", "list", "--json").check().json["anchors"][0]["keys"] == [ACME.key_id]
    install(home, build())
    home.rlp("run", str(opening(home)), "--no-input").check()
    revoked = home.rlp("trust", "revoke", ACME.key_id, "--reason", "stolen").check()
    assert "acme_echo is not started any more" in revoked.err
    refused = home.rlp("run", str(opening(home)), "--no-input").check(4)
    assert "stolen" in refused.err
    hand(home, build("1.1.0")).check(4)
    assert [event.payload.change for event in home.events("trust.changed")] == ["add", "revoke"]  # type: ignore[attr-defined]
    home.rlp("verify").check()


def test_an_agent_cannot_be_installed_or_trusted_by_anybody_but_the_operator(home: Home) -> None:
    home.rlp("daemon", "start").check()
    socket = home.path / "run" / "rmp.sock"
    methods: dict[str, dict[str, Any]] = {
        "agents.upload": {"size": 1, "sha256": "0" * 64},
        "agents.install": {"upload": "x"},
        "agents.upgrade": {"name": "acme_echo"},
        "agents.rollback": {"name": "acme_echo"},
        "agents.remove": {"name": "writer"},
        "trust.add": {"publisher": "eve", "key": str(EVE.public), "names": ["*"]},
        "trust.remove": {"publisher": "acme"},
        "trust.revoke": {"subject": ACME.key_id, "reason": "x"},
        "trust.list": {},
        "agents.show": {"name": "writer"},
    }
    client = BlockingClient.connect(socket, None, 10.0)
    try:
        for method, params in methods.items():
            with pytest.raises(RefusedError) as caught:
                client.call(method, params, timeout_s=10.0)
            assert caught.value.named_code == "operator.required", method
    finally:
        client.close()
    assert not (home.path / "trust.toml").exists()


# --- what must not come in ------------------------------------------------------------------------


@pytest.mark.requirement("I3.install.4", "M9")
def test_a_bundle_that_was_tampered_with_is_refused_with_its_own_reason(home: Home) -> None:
    trust(home, trust_toml() + f'[anchors.eve]\nkeys = ["{EVE.public}"]\nnames = ["eve_*"]\n')
    good = build()
    folder = home.path / "downloads"
    cases = {
        "cut": (good.data[:-600], "archive."),
        "appended": (good.data + bytes(512), "archive."),
        "flipped": (good.data.replace(b"Says one word", b"Says two word"), "trust."),
        "resigned": (build(key=EVE).data, "trust.name"),
        "unsigned": (build(key=None).data, "trust.unsigned"),
    }
    folder.mkdir()
    for name, (data, code) in cases.items():
        (folder / f"{name}.rlb").write_bytes(data)
        refused = home.rlp("agent", "install", str(folder / f"{name}.rlb"), "--json").check(4)
        assert refused.json["error"]["code"].startswith(code), (name, refused.json)
    assert home.events("action.requested", "agent.installed") == []
    assert not list((home.path / "bundles").glob(".staged/*"))


def test_files_that_are_no_bundle_files_are_told_apart(home: Home) -> None:
    folder = home.path / "downloads"
    path = build().write(folder)
    (folder / "link.rlb").symlink_to(path)
    os.mkfifo(folder / "pipe.rlb")
    home.rlp("agent", "install", str(folder / "link.rlb")).check(2)
    home.rlp("agent", "install", str(folder / "pipe.rlb")).check(2)
    home.rlp("agent", "install", str(folder)).check(2)
    missing = home.rlp("agent", "install", str(folder / "none.rlb")).check(7)
    assert "rlp agent build" in missing.err
    with (folder / "huge.rlb").open("wb") as file:
        file.truncate(1 << 32)
    home.rlp("agent", "install", str(folder / "huge.rlb")).check(4)


@pytest.mark.requirement("I3.install.4")
def test_installed_bytes_that_were_altered_are_not_run_and_no_other_ones_instead(home: Home) -> None:
    trust(home)
    built = build()
    install(home, built)
    (home.path / "bundles" / built.digest / "agent.py").write_text("evil = True\n")
    refused = home.rlp("run", str(opening(home)), "--no-input").check(4)
    assert "not the one that was installed" in refused.err
    shown = home.rlp("agent", "show", "acme_echo").check()
    assert "NOT STARTED" in shown.out
    doctor = home.rlp("doctor")
    assert "not the one that was installed" in doctor.out
    mended = hand(home, built).check()
    assert "damaged files were put back" in mended.err
    home.rlp("run", str(opening(home)), "--no-input").check()


def test_no_folder_takes_the_name_of_an_installed_agent_whatever_is_allowed(home: Home) -> None:
    trust(home)
    install(home, build())
    home.rlp("daemon", "stop").check()
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    folder = home.path / "agents" / "acme_echo"
    shutil.copytree(home.path / "bundles" / build().digest, folder)
    (folder / "agent.py").write_text("evil = True\n")
    refused = home.rlp("run", str(opening(home)), "--no-input").check(4)
    assert "takes the name of the installed agent" in refused.err
    shutil.rmtree(folder)
    home.rlp("run", str(opening(home)), "--no-input").check()
    assert said(home) == "acme_echo 1.0.0"


@pytest.mark.requirement("I3.install.3", "M8", "M10")
def test_an_index_that_is_gone_old_or_frozen_blocks_installs_with_its_reason(home: Home) -> None:
    trust(home)
    index = home.path / "index"
    index.mkdir()
    home.env["RUNLOOP__SECURITY__AGENT_INDEX"] = str(index)
    one, two = build("1.0.0"), build("1.1.0")
    for built in (one, two):
        built.write(index)

    def refused(*words: str) -> str:
        return str(home.rlp("agent", *words, "--json").check(4).json["error"]["code"])

    file = index / one.file_name
    assert refused("install", str(file)) == "index.unreachable"
    (index / "index.jsonl").write_bytes(index_of(one, serial=5, expires_ms=FAR_MS))
    home.rlp("agent", "install", str(file)).check(5)
    approve(home).check()
    (index / "index.jsonl").write_bytes(index_of(one, two, serial=4, expires_ms=FAR_MS))
    assert refused("upgrade", "acme_echo") == "index.rollback"
    (index / "index.jsonl").write_bytes(index_of(one, two, serial=6, expires_ms=DAY_MS))
    assert refused("upgrade", "acme_echo") == "index.expired"
    (index / "index.jsonl").write_bytes(index_of(one, two, serial=7, expires_ms=FAR_MS))
    home.rlp("agent", "upgrade", "acme_echo").check(5)
    approve(home).check()
    assert refused("install", str(file)) == "install.downgrade"
    home.rlp("agent", "install", str(file), "--allow-downgrade").check(5)
    approve(home).check()
    assert [event.payload.how for event in home.events("agent.installed")] == [  # type: ignore[attr-defined]
        "install",
        "upgrade",
        "downgrade",
    ]


# --- development keys -----------------------------------------------------------------------------


@pytest.mark.requirement("I3.install.5")
def test_a_development_bundle_says_dev_wherever_it_is_shown(home: Home) -> None:
    built = build(name="mine", key=dev_key(home.path / "keys"))
    refused = hand(home, built).check(4)
    assert "--dev-key" in refused.err
    install(home, built, "--dev-key")
    listed = home.rlp("agent", "list", "--json").check().ndjson
    rows = {row["name"]: row for row in listed if "refused" not in row}
    assert rows["mine"]["dev"] is True
    assert rows["writer"]["dev"] is False
    assert "(dev)" in home.rlp("agent", "show", "mine").check().out
    assert home.rlp("agent", "show", "mine", "--json").check().json["dev"] is True
    assert "dev: " in home.rlp("list").check().out
    assert "dev: mine" in home.rlp("doctor").out
    run = home.rlp("run", str(opening(home, "mine")), "--no-input").check()
    assert "dev: mine" in run.err
    (started,) = home.events("run.started")
    assert started.payload.origin["dev"] == ["mine"]  # type: ignore[attr-defined]


# --- kill -9 --------------------------------------------------------------------------------------


@pytest.mark.requirement("I3.install.1")
@pytest.mark.parametrize(
    ("kind", "moment", "asked", "installed"),
    [
        ("action.requested", "before", False, False),
        ("action.requested", "after", True, False),
        ("action.decided", "before", True, False),
        ("action.decided", "after", False, True),
        ("agent.installed", "before", False, True),
        ("agent.installed", "after", False, True),
    ],
)
def test_killed_anywhere_an_install_is_whole_or_not_at_all(
    home: Home, kind: str, moment: str, asked: bool, installed: bool
) -> None:
    trust(home)
    built = build()
    home.rlp("daemon", "stop")
    wait_gone_daemon(home)
    mortal = Mortal(home, kind, 1, moment)
    handed = hand(home, built)
    if handed.code == 5:
        home.allow(str(waiting(home)[0]["approval"]))
    mortal.wait_dead()
    home.rlp("daemon", "start").check()
    if installed:  # the person had said yes, and that was on record
        wait_until(lambda: home.events("agent.installed"), "the install to be carried out")
        home.rlp("run", str(opening(home)), "--no-input").check()
    else:
        assert home.events("agent.installed") == []
        assert [one["state"] for one in waiting(home)] == (["open"] if asked else [])
    wait_until(
        lambda: bool(list((home.path / "bundles").glob(".staged/*"))) == asked, "the leftovers to be swept"
    )
    assert not list((home.path / "bundles").glob(".new-*"))
    if asked:
        approve(home).check()
        home.rlp("run", str(opening(home)), "--no-input").check()
    home.rlp("verify").check()


# --- small mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("agent", "show", "nobody"), 7, "there is no agent"),
        (("agent", "show", "No-Body"), 2, "not the name of an agent"),
        (("agent", "remove", "nobody"), 7, "no agent nobody is installed"),
        (("agent", "remove", "writer"), 4, "came with Runloop"),
        (("agent", "rollback", "nobody"), 7, "rlp agent list"),
        (("agent", "upgrade", "nobody"), 7, "no agent nobody is installed"),
        (("trust", "add", "acme", str(ACME.public)), 2, "--name 'acme_*'"),
        (("trust", "add", "acme", "ssh-rsa AAA", "--name", "*"), 2, "not an Ed25519 public key"),
        (("trust", "add", "dev", str(ACME.public), "--name", "*"), 2, "Runloop's own"),
        (("trust", "add", "acme", str(ACME.public), "--name", "a b"), 2, "fits no agent name"),
        (("trust", "add", "acme", str(ACME.public), "--name", "*", "--expires", "soon"), 2, "2027-01-31"),
        (("trust", "add", "acme", str(ACME.public), "--name", "*", "--capability", "nte"), 2, "nte"),
        (("trust", "remove", "nobody"), 7, "rlp trust list"),
        (("trust", "revoke", "rubbish"), 2, "rubbish"),
    ],
)
def test_every_mistake_has_its_own_words_and_exit_code(
    seed_home: Home, words: tuple[str, ...], code: int, says: str
) -> None:
    assert says in seed_home.rlp(*words).check(code).err


@pytest.fixture(scope="module")
def seed_home(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One home for all the small mistakes: nothing is changed in it."""
    path = tmp_path_factory.mktemp("m")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    with Home(path) as fresh:
        yield fresh


def test_a_signing_key_is_made_once_and_shown_with_what_others_add(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "acme.key"
    made = home.rlp("agent", "key", str(file), "acme", "--json").check().json
    assert (file.stat().st_mode & 0o777, made["made"]) == (0o600, True)
    again = home.rlp("agent", "key", str(file), "acme", "--json").check().json
    assert (again["key"], again["made"]) == (made["key"], False)
    assert made["public"] in made["stanza"]
    trust(home, "version = 1\n" + made["stanza"])
    assert home.rlp("trust", "list", "--json").check().json["anchors"][0]["keys"] == [made["key"]]


def test_a_broken_agent_is_listed_with_its_reason(home: Home) -> None:
    folder = home.path / "agents" / "broken"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text('name = "broken"\nversion = "one"\n')
    listed = home.rlp("list").check().out
    assert "broken" in listed
    assert "refused: " in listed
    assert "MAJOR.MINOR.PATCH" in home.rlp("agent", "list").check().err
    assert "MAJOR.MINOR.PATCH" in home.rlp("doctor").out


def test_doctor_says_that_unsigned_agents_are_allowed(home: Home) -> None:
    assert "agents nobody vouches for are refused" in home.rlp("doctor").out
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    assert "security.allow_unsigned_agents is on" in home.rlp("doctor").out


def test_the_howto_about_installing_does_what_it_says(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(DOCS / "howto" / "agents-install.md")
