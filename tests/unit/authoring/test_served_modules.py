"""An author may import what the SDK serves as source, and only that."""

from __future__ import annotations

import ast

from runloop.authoring.toolchains.python import _imports, served
from runloopd.runtime.library import served_beside


def test_the_lint_knows_exactly_the_modules_that_are_served() -> None:
    given = served_beside({"agent": "import runloop.collab\nimport runloop.loop\nimport runloop.speech\n"})
    assert served() == given.keys() - {"agent"}


def test_a_module_that_is_not_served_is_named() -> None:
    text = "from runloop.collab import Room\nfrom runloop import speech\nimport runloop.collab.none\n"
    (finding,) = _imports("agent.py", ast.parse(text), {"agent"})
    assert (finding.line, finding.what) == (3, "there is no module 'runloop.collab.none' here")
