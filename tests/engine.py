"""A container engine of the tests' own, where one runs: its storage, its image, nothing of the user's.

Knows: how podman is started with a store in a temporary folder, which docker is fit (a rootless one, whose
service the user runs), and how an image is made of this machine's own programs, so that no registry is asked.
Does not know: what is tested. Where no engine runs, it says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TestEngine", "engine_in"]

_PROGRAMS = ("sh", "dash", "cat", "cut", "env", "ls", "sleep", "id", "head", "true", "wc", "mawk", "tail",
             "du", "setsid", "python3", "printf", "git", "mount", "su", "passwd", "chmod", "mv")  # fmt: skip
_LEFT_OUT = ("test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "distutils", "unittest",
             "dist-packages", "__pycache__", "turtledemo", "sqlite3", "wsgiref", "xmlrpc")  # fmt: skip


@dataclass(frozen=True)
class TestEngine:
    """Where it is, and the image it has."""

    __test__ = False
    path: Path
    image: str
    kind: str

    def clear(self) -> None:
        """Take its storage away, which belongs to users that only the engine can be."""
        if self.kind == "docker":
            _said(self.path, "image", "rm", "--force", self.image)
        elif os.geteuid() != 0:
            _said(self.path, "unshare", "rm", "-rf", self.path.parent / "store", self.path.parent / "run")


def engine_in(folder: Path, kind: str = "podman") -> TestEngine | str:
    """An engine of a kind (``podman``, ``docker``) with an image, or why there is none."""
    found = shutil.which(kind)
    if found is None:
        return f"{kind} is not installed"
    path = folder / kind
    start = _podman(found, folder) if kind == "podman" else f'exec {found} "$@"'
    path.write_text(f"#!/bin/sh\n{start}\n")
    path.chmod(0o755)
    try:
        if kind == "docker" and "rootless" not in _said(path, "info", "--format", "{{.SecurityOptions}}"):
            return "docker is not rootless here: its containers have no user namespace, and nothing starts"
        image = _said(path, "import", str(_userland(folder))).strip().splitlines()[-1]
        _said(path, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024",
              "--ulimit", "nproc=4096:4096", image, "/usr/bin/true")  # fmt: skip
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"{kind} does not run here: {said.decode(errors='replace').strip()[-300:] or error}"
    return TestEngine(path, image, kind)


def _podman(podman: str, folder: Path) -> str:
    """What starts it with a store of its own."""
    store = f"--root {folder}/store --runroot {folder}/run --storage-driver vfs"
    start = f'exec {podman} {store} "$@"'
    if os.geteuid() == 0 and Path("/sys/fs/cgroup/unified").exists():
        # crun wants one kind of cgroups; a machine that mounts both lends it a view with one.
        view = f"umount /sys/fs/cgroup/unified; {start.replace(podman, podman + ' --runtime crun')}"
        start = f"exec unshare -m sh -c '{view}' sh \"$@\""
    return start


def _said(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, timeout=60, check=True).stdout.decode()


def _userland(folder: Path) -> Path:
    """A few of this machine's programs with their libraries, as an archive."""
    made = folder / "image.tar"
    lib = Path(os.__file__).parent if os.__file__.startswith("/usr/lib") else Path("/usr/lib/python3.11")
    libraries: set[str] = set()
    for program in (shutil.which(name, path="/usr/bin") for name in _PROGRAMS):
        libraries |= _libraries(program) if program is not None else set()
    for module in (lib / "lib-dynload").glob("*.so"):
        libraries |= _libraries(str(module))
    inside = {library: f"usr/{library.removeprefix('/usr').lstrip('/')}" for library in sorted(libraries)}
    # Each folder by its name: what an archive leaves out, docker makes for root's eyes alone.
    folders = {str(above) for name in (*inside.values(), str(lib)[1:]) for above in Path(name).parents}
    with tarfile.open(made, "w") as archive:
        for name in sorted({"tmp", "etc", "usr/bin", "usr/lib64", *folders} - {"."}):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name in ("bin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(entry)
        for name in _PROGRAMS:
            found = shutil.which(name, path="/usr/bin")
            if found is not None:
                archive.add(Path(found).resolve(), f"usr/bin/{name}")
        archive.add(lib, str(lib)[1:], filter=_wanted)
        for library, name in inside.items():
            archive.add(Path(library).resolve(), name)
    return made


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    return None if any(part in _LEFT_OUT or part.startswith("config-") for part in parts) else entry


def _libraries(program: str) -> set[str]:
    said = subprocess.run(("ldd", program), capture_output=True, timeout=30, check=False).stdout.decode()
    return {word for word in said.split() if word.startswith("/") and not word.endswith(":")}
