"""What a call knows of an item that a worker has to end."""

from __future__ import annotations

import attrs

from kling_async._distributed.shards import ShardItem
from kling_async.jobs import Job
from kling_async.requests import VideoRequest


@attrs.define(eq=False, kw_only=True)
class AwaitedItem:
    """One item of the call whose end the call awaits from a worker."""

    item: ShardItem
    request: VideoRequest | None
    made: Job | None = None
    """The job that made its video before this call; a worker looks whether the video is saved."""
    is_finished: bool = False
    """Whether the caller has heard of its end."""
    is_saved: bool = False
    """Whether the caller has heard that its video is saved."""
    job_id: str | None = None
    """The last job of it that this call has heard of; not one that ended before the call, which submits the item again."""
    queued_shard: int | None = None
    """The number of the queued shard that covers it, as the call has seen last."""
    shards_without_outcome: int = 0
    """How many shards with it ended by themselves without its outcome."""
