"""Names for finished videos: every file system takes them, and no two jobs share one."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_SLUG_CHARACTERS = 48
_RANDOM_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.IGNORECASE | re.ASCII
)


def slug(text: str) -> str:
    """The text's ASCII letters and digits, joined by hyphens, at most 48 characters; empty if it has none."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    short = "-".join(words)[:_SLUG_CHARACTERS]
    return short.rstrip("-")


def tag(request_id: str) -> str:
    """Eight characters that identify a job: the first ones of its random UUID, or of a digest of any other id.

    A UUID of another version can begin with the time, and then has the same beginning as all jobs of a minute.
    """
    if _RANDOM_UUID.match(request_id):
        return request_id[:8].lower()
    return hashlib.blake2s(request_id.encode(errors="surrogatepass"), digest_size=4).hexdigest()


def file_name(request_id: str, *, prompt: str = "", index: int | None = None) -> str:
    """A name such as `00007-a-black-dog-550e8400.mp4`: it sorts in input order up to index 99,999 and belongs to one job.

    It consists of at most 70 ASCII letters, digits and hyphens, so no id can lead out of the folder.
    """
    parts = [f"{index:05d}" if index is not None else "kling", slug(prompt), tag(request_id)]
    return "-".join(part for part in parts if part) + ".mp4"
