"""Unit tests in plain unittest: nothing but Runloop is needed. 'rlp agent test' runs them first."""

from __future__ import annotations

import unittest
from pathlib import Path

from runloop.guest_testing import FakeHost, load_agent

AGENT = load_agent(Path(__file__).parents[1])


class Handle(unittest.TestCase):
    def test_it_says_in_the_log_how_much_it_found(self) -> None:
        host = FakeHost()
        outcome = AGENT.run(ports={"text": ["todo: one\nReally?"]}, host=host)
        self.assertEqual(outcome.value("out")["questions"], ["Really?"])
        self.assertEqual(host.made("log.write")[0]["message"], "found 2 requests")

    def test_an_empty_text_is_a_failure_with_a_code(self) -> None:
        outcome = AGENT.run(ports={"text": [""]})
        self.assertEqual(outcome.code, "__NAME__.empty")


class Requests(unittest.TestCase):
    def test_a_tool_is_called_with_json_and_answers_with_json(self) -> None:
        outcome = AGENT.call_tool("__NAME__.requests", text="[ ] pay the bill by 2031-05-01")
        self.assertEqual(
            outcome.value("result"),
            [{"kind": "todo", "line": 1, "text": "pay the bill by 2031-05-01", "due": "2031-05-01"}],
        )


if __name__ == "__main__":
    unittest.main()
