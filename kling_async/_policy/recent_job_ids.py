"""Which jobs have an owner already, remembered for as long as a lost reply could be taken for one of them."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque

import attrs

_BUCKETS = 8
_DIGEST_BYTES = 8
"""Among a million ids, two have the same digest of this length in one of 37 million cases; then the second job is told
as ambiguous.
"""


@attrs.define
class RecentJobIds:
    """The ids of the jobs that were accepted lately, in a few buckets that are forgotten whole."""

    span: float
    """Seconds for which an id is remembered at least."""
    _buckets: deque[tuple[float, _Ids]] = attrs.field(init=False, factory=deque)
    _last_bucket_ends_at: float = attrs.field(init=False, default=-math.inf)

    def add(self, request_id: str, *, now: float, keep: bool) -> bool:
        """Remember an id; False if it was remembered already. Old ones are forgotten unless they are to be kept."""
        digest = _digest(request_id)
        if self._has(digest):
            return False
        if now >= self._last_bucket_ends_at:
            while self._buckets and not keep and self._buckets[0][0] + self.span < now:
                self._buckets.popleft()
            self._last_bucket_ends_at = now + self.span / _BUCKETS
            self._buckets.append((self._last_bucket_ends_at, _Ids()))
        self._buckets[-1][1].add(digest)
        return True

    def __contains__(self, request_id: str) -> bool:
        """Whether an id is remembered."""
        return self._has(_digest(request_id))

    def _has(self, digest: bytes) -> bool:
        for _, ids in self._buckets:  # noqa: SIM110 - a generator would cost more than the look
            if digest in ids:
                return True
        return False


class _Ids:
    """A set of digests that takes a little more than their bytes: of many thousand, a tenth of what Python's would.

    They stand one after the other in short strings, by their first bits.
    """

    def __init__(self) -> None:
        self._groups: defaultdict[int, bytearray] = defaultdict(bytearray)

    def add(self, digest: bytes) -> None:
        """Remember one that is not there yet."""
        self._groups[_group_of(digest)] += digest

    def __contains__(self, digest: bytes) -> bool:
        string = self._groups.get(_group_of(digest), b"")
        at = string.find(digest)
        while at > 0 and at % _DIGEST_BYTES:  # the end of one and the beginning of the next
            at = string.find(digest, at + 1)
        return at >= 0


def _group_of(digest: bytes) -> int:
    return digest[0] << 3 | digest[1] >> 5


def _digest(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
