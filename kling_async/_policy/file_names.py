"""What a finished video is called: a name that every file system takes, and that no other job gets."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_SLUG_CHARACTERS = 48
_RANDOM_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", re.IGNORECASE | re.ASCII
)


def slug(text: str) -> str:
    """The text's ASCII letters and digits, joined by hyphens, at most 48 characters; empty where it has none."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    short = "-".join(words)[:_SLUG_CHARACTERS]
    return short.rstrip("-")


def tag(request_id: str) -> str:
    """Eight characters for a job: the first of its random UUID, or of a digest of any other id.

    A UUID of another version may begin with the time and share its beginning with all jobs of a minute.
    """
    if _RANDOM_UUID.match(request_id):
        return request_id[:8].lower()
    return hashlib.blake2s(request_id.encode(errors="surrogatepass"), digest_size=4).hexdigest()


def file_name(request_id: str, *, prompt: str = "", index: int | None = None) -> str:
    """Such as `00007-a-black-dog-550e8400.mp4`: sorts in input order (the first 100,000), says what it shows, is the job's own.

    Only ASCII letters, digits and hyphens, and never more than 70 characters; nothing of the id can leave a folder.
    """
    parts = [f"{index:05d}" if index is not None else "kling", slug(prompt), tag(request_id)]
    return "-".join(part for part in parts if part) + ".mp4"
