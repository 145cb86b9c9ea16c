"""Plans what is to be done with each file as the findings come in, and folds what came of it into one report.

What concerns one file is given to the patcher at once. A new name concerns them all: it waits until every
reader is through, and is given only if no other file has the old one.
"""

from __future__ import annotations

from typing import Any

from runloop.agent import Result, Task, handler
from runloop.host import Host

FINDINGS = "talk/findings"
PATCHER = "node/patcher"
SPACE = "shared:swarm"


@handler
def handle(task: Task, host: Host) -> Result:
    """Everything said on ``talk/findings`` -> jobs for the patcher, and the report about them."""
    swarm = Swarm(host, str(task.context["run"]))
    for message in host.listen(FINDINGS):
        swarm.hear(message)
        if swarm.over:
            break
    report = swarm.reduce()
    page = written(report)
    host.put_artifact("swarm.md", page)
    return Result.of(report=report, page=page)


class Swarm:
    """What is known, what is waited for."""

    def __init__(self, host: Host, run: str) -> None:
        self._host = host
        self._run = run
        self._files: dict[str, dict[str, Any]] = {}
        self._jobs: dict[str, tuple[str, dict[str, Any] | None]] = {}
        """Message to the patcher -> path, and the finding to answer then."""
        self._ended: set[int] = set()
        self._of = 0
        self._later: list[str] = []
        self._done: dict[str, str] = {}
        """Path -> key of what the patcher left in shared memory."""
        self._refused: list[dict[str, Any]] = []
        self._undone: list[dict[str, Any]] = []
        """Files that the patcher could do nothing with."""

    @property
    def over(self) -> bool:
        """Every reader is through and every job is answered."""
        return self._read_all and not self._later and not self._jobs

    @property
    def _read_all(self) -> bool:
        return 0 < self._of == len(self._ended)

    def hear(self, message: dict[str, Any]) -> None:
        """A finding, the end of a reader, or what the patcher made of a job."""
        content = message["content"]
        if message["in_reply_to"] in self._jobs:
            path, finding = self._jobs.pop(message["in_reply_to"])
            if message["act"] == "inform":
                self._done[path] = str(content["result"])
            else:
                why = f"{message['act']}: {content.get('code', '')} {content.get('message', '')}".rstrip()
                self._undone.append({"path": path, "why": why})
            if finding is not None:
                self._host.reply(finding, {"path": path, "patched": message["act"] == "inform"})
        elif content.get("end"):
            self._of = int(content["of"])
            self._ended.add(int(content["shard"]))
            if self._read_all:
                self._rename()
        else:
            self._found(message, content)

    def _found(self, message: dict[str, Any], content: dict[str, Any]) -> None:
        path = content["path"]
        self._files[path] = content
        if not content["todos"]:
            return
        if any(todo["kind"] == "rename" for todo in content["todos"]):
            self._later.append(path)
            self._host.reply(message, {"path": path, "later": True})
        else:
            self._give(path, content["todos"], message)

    def _rename(self) -> None:
        for path in self._later:
            todos = []
            for todo in self._files[path]["todos"]:
                old = todo["text"].partition("->")[0].strip()
                where = sorted(
                    name for name, file in self._files.items() if name != path and old in file["names"]
                )
                if todo["kind"] == "rename" and where:
                    why = f"{old} is also a name in {', '.join(where[:3])}"
                    self._refused.append({"path": path, "line": todo["line"], "kind": "rename", "why": why})
                else:
                    todos.append(todo)
            if todos:
                self._give(path, todos, None)
        self._later = []

    def _give(self, path: str, todos: list[dict[str, Any]], finding: dict[str, Any] | None) -> None:
        key = f"{self._run}/plan/{path}"
        plan = {"path": path, "digest": self._files[path]["digest"], "todos": todos}
        self._host.memory_put(key, plan, namespace=SPACE)
        job = self._host.publish(
            PATCHER, {"plan": key, "result": f"{self._run}/result/{path}"}, act="request"
        )
        self._jobs[job["message"]] = (path, finding)

    def reduce(self) -> dict[str, Any]:
        """One report of everything; what was laid down for it in shared memory is taken away."""
        patched, done = [], []
        refused = list(self._refused)
        for path, key in sorted(self._done.items()):
            result, _ = self._host.memory_get(key, namespace=SPACE)
            done += [{"path": path, **todo} for todo in result["done"]]
            refused += [{"path": path, **todo} for todo in result["refused"]]
            if result["diff"]:
                patched.append({"path": path, "diff": result["diff"], "digest": result["digest"]})
            self._host.memory_delete(key, namespace=SPACE)
            self._host.memory_delete(f"{self._run}/plan/{path}", namespace=SPACE)
        files = self._files.values()
        return {
            "files": len(self._files),
            "changed": sum(bool(file["changed"]) for file in files),
            "skipped": [{"path": file["path"], "why": file["skipped"]} for file in files if file["skipped"]],
            "patched": patched,
            "done": done,
            "refused": sorted(refused, key=lambda todo: (todo["path"], todo["line"])),
            "undone": sorted(self._undone, key=lambda file: file["path"]),
            "unanswered": sorted([path for path, _ in self._jobs.values()] + self._later),
            "complete": self.over,
            "left": sum(int(file["other"]) for file in files),
        }


def written(report: dict[str, Any]) -> str:
    """The page about it."""
    lines = [
        "# Code swarm",
        "",
        f"{report['files']} files read, {report['changed']} of them new or changed since the last time; "
        f"{len(report['done'])} TODOs done in {len(report['patched'])} diffs, {report['left']} left.",
        "",
    ]
    lines += [f"- {one['path']}: {one['diff']}" for one in report["patched"]]
    lines += [
        f"- not done, {one['path']}:{one['line']} ({one['kind']}): {one['why']}" for one in report["refused"]
    ]
    lines += [f"- not done, {one['path']}: {one['why']}" for one in report["undone"]]
    lines += [f"- not read, {one['path']}: {one['why']}" for one in report["skipped"]]
    lines += [f"- never answered: {path}" for path in report["unanswered"]]
    return "\n".join(lines) + ("\n" if report["complete"] else "\nNot everybody reached the end.\n")
