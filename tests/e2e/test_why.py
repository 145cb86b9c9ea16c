"""``rlp kb why``, whole: back to the roots of a fact, and forward to what it led to."""

from __future__ import annotations

import pytest

from tests.home import EXAMPLES, Home


@pytest.mark.requirement("I2.user.12")
def test_a_fact_is_explained_back_and_with_impact_forward(home: Home) -> None:
    home.rlp("import", str(EXAMPLES / "contacts.vcf")).check()
    fact = home.events("contact.upserted")[0].id
    back = home.rlp("kb", "why", str(fact), "--json").check().json
    forward = home.rlp("kb", "why", str(fact), "--impact", "--json").check().json
    assert (back["direction"], back["target"]) == ("back", fact)
    assert (forward["direction"], forward["target"]) == ("forward", fact)
