"""A set of job ids that forgets the old ones, in little memory: the jobs that have an owner, and those of answered POSTs."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque

import attrs

from kling_async.jobs import canonical_id

_BUCKETS = 8
_DIGEST_BYTES = 8
"""Two of a million ids share a digest of this length with a probability of 1 in 37 million; the second job is then
reported as ambiguous.
"""


@attrs.define
class RecentJobIds:
    """The ids of recently accepted jobs, in a few buckets; each bucket is forgotten as a whole."""

    span: float
    """Seconds for which an id is remembered, at least."""
    _buckets: deque[tuple[float, _Ids]] = attrs.field(init=False, factory=deque)
    _last_bucket_ends_at: float = attrs.field(init=False, default=-math.inf)

    def add(self, request_id: str, *, now: float, keep: bool) -> bool:
        """Remember an id.

        Args:
            request_id: The job's id.
            now: Seconds of a monotonic clock.
            keep: Whether to keep all ids; else the ids older than `span` are forgotten.

        Returns:
            False if the id was remembered before.
        """
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

    def is_expired(self, now: float) -> bool:
        """Whether all ids are older than `span`."""
        return self._last_bucket_ends_at + self.span < now

    def __contains__(self, request_id: str) -> bool:
        """Whether an id is remembered."""
        return self._has(_digest(request_id))

    def _has(self, digest: bytes) -> bool:
        for _, ids in tuple(self._buckets):  # noqa: SIM110 - a generator would cost more than the test
            if digest in ids:
                return True
        return False


class _Ids:
    """A set of digests: of many thousand, it takes a tenth of the memory of Python's set.

    It joins the digests with the same first bits into one short byte string.
    """

    def __init__(self) -> None:
        self._groups: defaultdict[int, bytearray] = defaultdict(bytearray)

    def add(self, digest: bytes) -> None:
        """Add a digest that is not in the set."""
        self._groups[_group_of(digest)] += digest

    def __contains__(self, digest: bytes) -> bool:
        string = self._groups.get(_group_of(digest), b"")
        offset = string.find(digest)
        while offset > 0 and offset % _DIGEST_BYTES:  # the end of one digest and the beginning of the next
            offset = string.find(digest, offset + 1)
        return offset >= 0


def _group_of(digest: bytes) -> int:
    return digest[0] << 3 | digest[1] >> 5


def _digest(request_id: str) -> bytes:
    text = canonical_id(request_id).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
