"""Kill a download before each of its steps on the disk: `killed_downloads.py FOLDER ENDING JOB`.

For each step it makes a folder, forks, and lets the child kill itself with SIGKILL before the step. A hook of Python counts the
steps: each file that is opened, locked, renamed or removed in the folder. The child of the last folder comes to its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

from kling_async._engine.clock import Clock
from kling_async._engine.download.file_lock import remove_partial_files
from kling_async._engine.download.partial_file import AdaptiveWriter, open_partial
from kling_async._policy.http_ranges import FileVersion, dump

STEPS = frozenset({"open", "fcntl.flock", "os.chmod", "os.link", "os.rename", "os.remove"})
CONTENT = hashlib.shake_128(b"0").digest(10_000)
"""As `virtual_storage.video` makes it."""


async def download(path: Path, ending: str, request_id: str) -> None:
    validator = None if ending == "given up" else '"v1"'
    version = FileVersion(request_id=request_id, size_bytes=len(CONTENT), validator=validator, digest=None)

    async def read_body(sink) -> bool:
        sink(CONTENT if ending == "whole" else CONTENT[:100])
        return True

    async with open_partial(path, request_id=request_id, writer=AdaptiveWriter(Clock())) as partial_file:
        await partial_file.write(read_body, version, offset=0, max_bytes=len(CONTENT))
        if ending == "whole":
            partial_file.commit(digest=True)


def run_child(path: Path, ending: str, request_id: str, step: int) -> None:
    folder, count = str(path.parent), 0
    if ending == "removes":
        version = FileVersion(request_id=request_id, size_bytes=9, validator='"v1"', digest=None)
        for name in ("a.mp4.part", "a.mp4.3.part"):
            path.with_name(name).touch(0o600)
            path.with_name(name).write_bytes(b"begun")
            path.with_name(f"{name}.json").write_text(dump(version))

    def kill_before_step(event, arguments) -> None:
        nonlocal count
        if event in STEPS and (isinstance(arguments[0], int) or str(arguments[0]).startswith(folder)):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill_before_step)
    if ending == "removes":
        remove_partial_files(path, request_id=request_id)
    else:
        asyncio.run(download(path, ending, request_id))


def main(root: str, ending: str, request_id: str) -> None:
    for step in range(1, 1000):
        folder = Path(root, f"{step:03d}")
        folder.mkdir()
        if (child := os.fork()) == 0:
            run_child(folder / "a.mp4", ending, request_id, step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        assert os.WIFSIGNALED(status), status


if __name__ == "__main__":
    main(*sys.argv[1:])
