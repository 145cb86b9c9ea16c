"""Modules of the SDK that are served to agents as source: to those that import them, and to no others."""

from __future__ import annotations

import pytest

from runloop import speech
from runloop.guest import Program
from runloop.host import Host
from runloopd.runtime.library import library_digest, served_beside, uses_library

PLAIN = "from runloop.agent import Result, handler\n# runloop.speech\nTEXT = 'import of runloop.speech'\n"


@pytest.mark.parametrize(
    "line",
    [
        "from runloop import speech",
        "from runloop import (\n    host,\n    speech,\n)",
        "import runloop.speech",
        "import runloop.speech as acts",
        "from runloop.speech import ACTS",
        "def f():\n    from runloop.speech import ACTS",
    ],
)
def test_who_imports_it_is_served_it(line: str) -> None:
    served = served_beside({"agent": line})
    assert "runloop.speech" in served
    assert uses_library(served)


@pytest.mark.parametrize("text", ["", PLAIN, "from runloop.agent import Result", "import runloop.host"])
def test_who_does_not_import_it_starts_as_before(text: str) -> None:
    own = {"agent": text}
    assert served_beside(own) == own
    assert not uses_library(own)
    assert not uses_library(None)


def test_a_module_of_the_bundle_comes_first() -> None:
    own = {"agent": "from runloop import speech", "runloop.speech": "ACTS = ()"}
    assert served_beside(own) == own
    assert not uses_library(own)


def test_the_sources_are_named_by_a_digest() -> None:
    assert len(library_digest()) == 64


def test_a_served_module_is_imported_as_the_agents_own() -> None:
    source = "from runloop.agent import Result, handler\nfrom runloop import speech\n" + (
        "@handler\ndef handle(task, host):\n    return Result.of(out={'n': len(speech.ACTS)})\n"
    )
    program = Program(served_beside({"agent_that_talks": source}), "agent_that_talks:handle")
    ok, text = program.handle('{"op":"handle"}', Host(lambda op, args: (True, "{}")))
    assert ok, text
    assert f'"n":{len(speech.ACTS)}' in text.replace(" ", "")
