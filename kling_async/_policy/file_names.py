"""Names for finished videos: every file system takes them, and no job takes the name that another one has."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePath

from kling_async.jobs import canonical_id

_SLUG_CHARACTERS = 48
_SLUG_BYTES = 96
"""In UTF-8, of which a letter takes up to four bytes.

A name of this slug, with its number and with the endings of its partial files, has at most 143 bytes: the most that an
encrypted home folder takes. Source: the documentation of eCryptfs.
"""
_NAME_BYTES = 255
"""The longest name that usual file systems take. Source: `NAME_MAX` of Linux and macOS; NTFS counts 255 UTF-16 units."""
_LONGEST_ENDING = ".99.part.json"
_NUMBER = re.compile(r"(\.\d+)?\.part\Z")
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that show nothing. Source: `Default_Ignorable_Code_Point` of Unicode 15."""


def slug(text: str, *, is_ascii: bool = False) -> str:
    """The text's words, in lower case, joined by hyphens: at most 48 characters and 96 bytes; empty if it has none.

    A word is letters and digits of any script, in Unicode's normal form C. Controls, marks of writing direction, and
    all that shows nothing are left out.

    Args:
        text: Such as a prompt.
        is_ascii: Keep only ASCII letters and digits; letters with accents lose their accents.
    """
    if is_ascii:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    else:
        visible = "".join(char for char in _INVISIBLE.sub("", text) if unicodedata.category(char) != "Cf")
        plain = unicodedata.normalize("NFC", visible.lower())
    spaced = "".join(char if _is_of_a_word(char) else " " for char in plain)
    words = [_from_first_letter(word) for word in spaced.split()]
    return _cut("-".join(word for word in words if word), _SLUG_CHARACTERS, _SLUG_BYTES).rstrip("-")


def _is_of_a_word(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LN" or category in {"Mn", "Mc"}


def _from_first_letter(word: str) -> str:
    """The word without combining marks at its beginning, where they would change the character before."""
    start = 0
    while start < len(word) and unicodedata.category(word[start])[0] == "M":
        start += 1
    return word[start:]


def _cut(text: str, characters: int, size_bytes: int) -> str:
    """The beginning of the text that fits; a letter keeps all its combining marks or is left out."""
    end = min(len(text), characters)
    while len(text[:end].encode(errors="surrogatepass")) > size_bytes:
        end -= 1
    while 0 < end < len(text) and unicodedata.category(text[end])[0] == "M":
        end -= 1
    return text[:end]


def tag(request_id: str) -> str:
    """Eight characters that tell a job from most others: the beginning of its random UUID, or a digest of any other id.

    Of 100,000 jobs two have the same tag more often than not. A UUID of another version can begin with the time, and then
    has the same beginning as all jobs of a minute.
    """
    canonical = canonical_id(request_id)
    return canonical[:8] if _RANDOM_UUID.match(canonical) else _digest(canonical)


def whole_tag(request_id: str) -> str:
    """The 32 characters that tell a job from all others: a digest of its id."""
    return _digest(canonical_id(request_id), size_bytes=16)


def _digest(text: str, *, size_bytes: int = 4) -> str:
    return hashlib.blake2s(text.encode(errors="surrogatepass"), digest_size=size_bytes).hexdigest()


def file_name(request_id: str, *, prompt: str = "", index: int | None = None, is_ascii: bool = False) -> str:
    """A name such as `00007-a-black-dog-550e8400.mp4`: it sorts in input order up to index 99,999 and shows the job.

    Another job can have the same name, so it is given to a file only if it is free; see `names_beside`.

    It consists of letters, digits and hyphens, and begins with an ASCII letter or digit. So no id and no prompt can
    lead out of the folder, hide the file, or name a device of Windows.

    Args:
        request_id: The job's id.
        prompt: The prompt, whose words the name shows.
        index: The item's index in its batch; None outside a batch.
        is_ascii: Use only ASCII letters and digits.
    """
    parts = [
        f"{index:05d}" if index is not None else "kling",
        slug(prompt, is_ascii=is_ascii),
        tag(request_id),
    ]
    return "-".join(part for part in parts if part) + ".mp4"


def longest_name(*, is_ascii: bool) -> str:
    """A name as long, in characters and in bytes, as the longest that saving a batch writes."""
    letter = "x" if is_ascii else "é"
    return file_name("", prompt=letter * _SLUG_CHARACTERS, index=10**9, is_ascii=is_ascii) + _LONGEST_ENDING


def longest_name_of(name: str) -> str:
    """The longest name that saving to a file of this name writes: that of a helper file, or its own."""
    return max(partial_name(name, 99) + ".json", name, key=_size_of)


def names_beside(name: str, request_id: str) -> tuple[str, str]:
    """The names of a job's video if another file has the name that it was to get.

    First a short one such as `eagle-550e8400.mp4`, and then one that no other job gets.
    """
    suffix = PurePath(name).suffix
    stem = name.removesuffix(suffix)
    endings = [f"-{one}{suffix}" for one in (tag(request_id), whole_tag(request_id))]
    short, whole = (
        _cut(stem, len(stem), max(1, _NAME_BYTES - _size_of(ending))) + ending for ending in endings
    )
    return short, whole


def unique_name(request_id: str, *, index: int | None = None) -> str:
    """The name in a folder that no other job gets, for a job whose `file_name` another file has."""
    _, name = names_beside(file_name(request_id, index=index), request_id)
    return name


def _size_of(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


def first_partial_name(partial: str) -> str:
    """The first name that the download could take that has the partial file of this name."""
    return _NUMBER.sub(".part", partial)


def partial_name(name: str, number: int = 1) -> str:
    """The name of the partial file of a destination: `NAME.part`, or `NAME.2.part` if another download has that.

    If the ending does not fit, a digest takes the place of the end of a long name.
    """
    size_bytes = _size_of(name)
    if _NAME_BYTES - len(_LONGEST_ENDING) < size_bytes <= _NAME_BYTES:
        digest = f"~{_digest(name)}"
        name = _cut(name, len(name), _NAME_BYTES - len(_LONGEST_ENDING) - len(digest)) + digest
    return f"{name}.part" if number == 1 else f"{name}.{number}.part"
