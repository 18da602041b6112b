"""What another user of a shared folder puts at a name that we are about to open."""

from __future__ import annotations

import os
import socket

TRAPS = ["symbolic link", "broken link", "hard link", "pipe", "folder", "socket"]


def put(trap, path, victim):
    """Put a trap at a path; a link leads to the victim."""
    match trap:
        case "symbolic link":
            path.symlink_to(victim)
        case "broken link":
            path.symlink_to(victim.with_name("not-there"))
        case "hard link":
            path.hardlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
