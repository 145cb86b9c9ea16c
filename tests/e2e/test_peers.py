"""Programs beside the daemon as their user sees them; a durable topic through the death of the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from runloop.client import BlockingClient, Reconnect
from tests.home import Home, wait_until

GENERIC = "observation.generic.v1"


def connect(home: Home, **more: object) -> BlockingClient:
    key = (home.path / "keys" / "operator.key").read_bytes()
    path: Path = home.path / "run" / "rmp.sock"
    return BlockingClient.connect(path, key, **more)  # type: ignore[arg-type]


@pytest.mark.requirement("I4.semantics.3")
def test_rlp_peers_shows_programs_with_their_claims_and_agents_with_their_rights(home: Home) -> None:
    home.rlp("daemon", "start").check()
    about = {"version": "1.4.0", "serves": ["demo/paint"], "capabilities": ["paint"]}
    with connect(home, client="painter", about=about):
        everybody = home.rlp("peers", "--json").check().ndjson
        agents = {entry["id"]: entry for entry in everybody if entry["kind"] == "agent"}
        assert (agents["writer"]["capabilities"], agents["writer"]["claimed"]) == (["model"], False)
        for question in (
            ("--topic", "demo/paint"),
            ("--capability", "paint"),
            ("--version", ">=1.4 <2"),
        ):
            (entry,) = home.rlp("peers", *question, "--json").check().ndjson
            assert (entry["client"], entry["claimed"], entry["state"]) == ("painter", True, "live")
        shown = home.rlp("peers", "--capability", "paint").check().out
        assert "paint (claimed)" in shown
        assert home.rlp("peers", entry["id"][:8], "--json").check().ndjson[0]["id"] == entry["id"]
    wait_until(lambda: not home.rlp("peers", "--capability", "paint", "--json").ndjson, "it to leave")
    (gone,) = home.rlp("peers", "--capability", "paint", "--gone", "--json").check().ndjson
    assert gone["state"] == "gone"
    refused = home.rlp("peers", "--version", "new")
    assert (refused.code, "no range of versions" in refused.err) == (2, True)


@pytest.mark.requirement("I4.semantics.4")
def test_the_account_of_the_bus_adds_up_and_names_who_holds_what(home: Home) -> None:
    home.rlp("daemon", "start").check()
    with connect(home, client="speaker") as client:
        client.subscribe("demo/*")
        for number in range(5):
            client.publish("demo/a", GENERIC, number)
        client.publish("durable/a", GENERIC, 1, durable=True)
        bus = home.rlp("daemon", "bus", "--json").check().json
        assert bus["addressed"] == bus["delivered"] + sum(bus["dropped"].values()) + bus["queued"]
        (peer,) = [one for one in bus["peers"] if one["client"] == "speaker"]
        assert peer["bytes_in"] > 500
        assert bus["durable"]["kept"] == 1
        shown = home.rlp("daemon", "bus").check().out
        assert "speaker" in shown
        assert "addressed" in home.rlp("daemon", "status").check().out


@pytest.mark.requirement("I4.semantics.1", "I4.semantics.2")
def test_a_killed_daemon_loses_no_message_and_its_clients_come_back(home: Home) -> None:
    home.rlp("daemon", "start").check()
    with connect(home, reconnect=Reconnect()) as publisher, connect(home, reconnect=Reconnect()) as consumer:
        consumer.consume("books", "durable/*")
        for number in range(10):
            publisher.publish("durable/orders", GENERIC, number, durable=True)
        for number in range(3):
            delivery = consumer.next_delivery(30)
            assert delivery is not None
            assert delivery.payload == number
            consumer.ack(delivery)
        home.kill()
        home.rlp("daemon", "start").check()
        for number in range(10, 20):
            publisher.publish("durable/orders", GENERIC, number, durable=True, timeout_s=60)
        for number in range(3, 20):
            delivery = consumer.next_delivery(30)
            assert delivery is not None
            assert delivery.payload == number
            consumer.ack(delivery)
        assert consumer.next_delivery(0.1) is None
    assert len(home.events("topic.published")) == 20
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()
