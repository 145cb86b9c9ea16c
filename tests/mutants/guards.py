"""The guards that are taken out one by one, and the tests that must notice (attacks.md, row S2).

Knows: for each guard of a choke point (architecture.md, section 3) its text and its tests. A text occurs once
in its file, so that who moves or rewrites a guard is told by ``tests/packaging/test_mutants.py`` to move it
here, too. Does not know: how a guard is taken out, or what the tests do (``tests.mutants.trial``).
"""

from __future__ import annotations

from tests.mutants.guard import Guard
from tests.mutants.inside import INSIDE
from tests.mutants.outside import OUTSIDE

__all__ = ["GUARDS", "Guard"]

GUARDS: tuple[Guard, ...] = (*INSIDE, *OUTSIDE)
