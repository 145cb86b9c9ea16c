"""Finding the one person a query means."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.guest_testing import AgentUnderTest, FakeHost, Outcome, Refuse

PEOPLE: dict[str, dict[str, Any]] = {
    "c1": {
        "contact": "c1",
        "name": "John Smith",
        "emails": ["john@acme.example", "js@home.example"],
        "org": "Acme",
        "title": "CFO",
        "nicknames": ["Johnny"],
        "event": 11,
    },
    "c2": {
        "contact": "c2",
        "name": "Johanna Müller",
        "emails": ["jm@berg.example"],
        "org": "Berg",
        "event": 12,
    },
    "c3": {"contact": "c3", "name": "John Doe", "emails": [], "org": "", "event": 13},
    "c4": {
        "contact": "c4",
        "name": "Mary Major",
        "emails": ["mary@acme.example"],
        "org": "John & Sons",
        "event": 14,
    },
    "e1": {
        "contact": "e1",
        "name": "John",
        "emails": ["eve@evil.example", "js@home.example"],
        "org": "Acme",
        "source": "agent:helper",
        "label": "agent:helper",
        "event": 15,
    },
    "e2": {"contact": "e2", "name": "Zoe", "emails": ["eve@evil.example"], "label": "agent:x", "event": 16},
}


def resolve(agent: AgentUnderTest, query: Any, *found: str) -> Outcome:
    host = FakeHost(
        {
            "kb.search": {
                "items": [{"kind": "contact", "id": name, "event": PEOPLE[name]["event"]} for name in found]
            },
            "kb.read": lambda args: {"item": PEOPLE[args["id"]]},
        }
    )
    return agent.run(with_={"query": query}, host=host)


def test_a_full_name_finds_its_contact(contact_resolver: AgentUnderTest) -> None:
    found = resolve(contact_resolver, "  john   SMITH ", "c1", "c3").value("out")
    assert found == {
        "id": "c1",
        "name": "John Smith",
        "email": "john@acme.example",
        "emails": ["john@acme.example", "js@home.example"],
        "org": "Acme",
        "title": "CFO",
        "matched": "name",
        "event": 11,
    }


@pytest.mark.parametrize(
    ("query", "contact", "how"),
    [
        ("JS@home.example", "c1", "address"),
        ("johnny", "c1", "nickname"),
        ("smith", "c1", "part of the name"),
        ("Johanna Muller", "c2", "name"),
        ("joha", "c2", "beginning of the name"),
    ],
)
def test_a_person_is_found_by_address_nickname_or_part_of_the_name(
    contact_resolver: AgentUnderTest, query: str, contact: str, how: str
) -> None:
    found = resolve(contact_resolver, query, "c1", "c2", "c4").value("out")
    assert (found["id"], found["matched"]) == (contact, how)


def test_the_address_that_was_asked_for_is_the_one_that_is_used(contact_resolver: AgentUnderTest) -> None:
    assert resolve(contact_resolver, "js@home.example", "c1").value("out")["email"] == "js@home.example"


def test_two_people_who_fit_alike_are_never_guessed_between(contact_resolver: AgentUnderTest) -> None:
    outcome = resolve(contact_resolver, "john", "c1", "c3")
    assert outcome.code == "contact.ambiguous"
    assert "John Smith (Acme, john@acme.example)" in outcome.message
    assert "John Doe" in outcome.message


@pytest.mark.parametrize(
    ("query", "contact"), [("john", "c1"), ("joh", "c1"), ("JS@home.example", "c1"), ("johnny", "c1")]
)
def test_what_an_agent_stated_never_stands_above_a_contact_of_the_user(
    contact_resolver: AgentUnderTest, query: str, contact: str
) -> None:
    assert resolve(contact_resolver, query, "e1", contact).value("out")["id"] == contact


def test_a_person_only_an_agent_knows_is_not_written_to(contact_resolver: AgentUnderTest) -> None:
    outcome = resolve(contact_resolver, "john", "e1", "c4")
    assert outcome.code == "contact.unconfirmed"
    assert "John (Acme, eve@evil.example) by agent:helper" in outcome.message
    assert not outcome.retryable


def test_the_exact_address_is_used_even_where_only_agents_know_it(contact_resolver: AgentUnderTest) -> None:
    found = resolve(contact_resolver, "js@home.example", "e1").value("out")
    assert (found["id"], found["email"]) == ("e1", "js@home.example")
    several = resolve(contact_resolver, "eve@evil.example", "e1", "e2").value("out")
    assert (several["id"], several["email"], several["name"]) == ("", "eve@evil.example", "")


def test_a_match_in_the_employer_only_is_no_match(contact_resolver: AgentUnderTest) -> None:
    assert resolve(contact_resolver, "sons", "c4").code == "contact.unknown"


def test_nobody_found_is_said_plainly(contact_resolver: AgentUnderTest) -> None:
    outcome = resolve(contact_resolver, "Zaphod")
    assert outcome.code == "contact.unknown"
    assert "Zaphod" in outcome.message
    assert not outcome.retryable


def test_an_address_nobody_has_is_taken_at_its_word(contact_resolver: AgentUnderTest) -> None:
    found = resolve(contact_resolver, "new@people.example").value("out")
    assert (found["id"], found["email"], found["name"]) == ("", "new@people.example", "")


def test_a_contact_without_an_address_cannot_be_written_to(contact_resolver: AgentUnderTest) -> None:
    assert resolve(contact_resolver, "John Doe", "c3").code == "contact.no_address"


@pytest.mark.parametrize("query", ["", "   "])
def test_an_empty_query_is_refused_before_any_search(contact_resolver: AgentUnderTest, query: str) -> None:
    host = FakeHost()
    assert contact_resolver.run(with_={"query": query}, host=host).code == "contact.query"
    assert host.calls == []


def test_a_refused_search_fails_with_the_code_of_the_gate(contact_resolver: AgentUnderTest) -> None:
    host = FakeHost({"kb.search": Refuse("cap.denied", "kb_read is not granted")})
    assert contact_resolver.run(with_={"query": "x"}, host=host).code == "cap.denied"
