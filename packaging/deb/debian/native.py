"""Compile the optional step of the bus for the package's architecture, by the wheel's own hook."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

hook = Path("hatch_build.py").read_text()
# Only the functions: the hook's class needs a build backend that is not here.
tree = ast.parse(hook)
tree.body = [
    node
    for node in tree.body
    if not isinstance(node, ast.ClassDef) and "hatchling" not in ast.unparse(node).split("\n")[0]
]
names: dict[str, object] = {}
exec(compile(tree, "hatch_build.py", "exec"), names)  # noqa: S102 - our own file
folder = Path(sys.argv[1])
problem = names["build"](Path("runloopd/bus/_gather.c"), folder / "_gather.abi3.so")  # type: ignore[operator]
sys.exit(problem)
