"""What the golden histories come to in this process, as one digest: ``python -m tests.histories.walk``.

For whoever wants to know whether time zone, language or hash seed of the process make a difference.
"""

from __future__ import annotations

from runloop.digest import digest
from tests.histories.test_histories import HISTORIES, history, walk

if __name__ == "__main__":
    print(digest({path.stem: walk(history(path)).to_json() for path in HISTORIES}))
