"""Make the folder a virtual environment of Debian's interpreter, and its launchers.

``pyvenv.cfg`` makes it one: whoever runs ``/usr/lib/runloop/bin/python3`` sees the libraries in it and none
of the user's or the system's, and finds the same again with ``sys.executable -I`` (attacks.md M6).
What Python would execute by itself at every start, be it in a wheel that is locked by hash, ends the build.
"""

from __future__ import annotations

import sys
from pathlib import Path

LAUNCHERS = {
    "usr/bin/rlp": "rlp.__main__",
    "usr/bin/agtop": "agtop.__main__",
    "usr/bin/runloopd": "runloopd.__main__",
}

AT_EVERY_START = ("*.pth", "sitecustomize.py", "usercustomize.py", "sitecustomize", "usercustomize")
"""What of a folder of libraries is executed before any program."""


def main(environment: Path) -> None:
    root = environment.parents[2]
    libraries = environment / "lib" / "python3.11" / "site-packages"
    planted = sorted(path.name for pattern in AT_EVERY_START for path in libraries.glob(pattern))
    if planted:
        sys.exit(f"environment: {', '.join(planted)} would run at every start of Python: no library may")
    (environment / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
    )
    (environment / "bin").mkdir()
    (environment / "bin" / "python3").symlink_to("/usr/bin/python3.11")
    for path, module in LAUNCHERS.items():
        launcher = root / path
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(
            "#!/usr/lib/runloop/bin/python3 -I\n"
            "import sys\n\n"
            f"from {module} import main\n\n"
            "sys.exit(main())\n"
        )
        launcher.chmod(0o755)


main(Path(sys.argv[1]).absolute())
