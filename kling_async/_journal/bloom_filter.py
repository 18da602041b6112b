"""A quick "surely not" before a lookup on the disk."""

from __future__ import annotations

_BITS = 1 << 23


class BloomFilter:
    """Remembers what it was given in one megabyte, however much that is: it may say yes wrongly, never no.

    With a million values in it, one lookup of nine is made for nothing.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)

    def add(self, value: object) -> None:
        """Remember the value."""
        place = hash(value) % _BITS
        self._bits[place >> 3] |= 1 << (place & 7)

    def may_contain(self, value: object) -> bool:
        """False where the value was never added."""
        place = hash(value) % _BITS
        return bool(self._bits[place >> 3] & 1 << (place & 7))
