"""Shards of a batch, and the options that its workers obey, as plain JSON values."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import attrs

from kling_async._engine.batch.resume import Plan
from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value
from kling_async.paths import ObjectUrl, output_path

VERSION = 1
"""The version of the shards and of the options. A worker refuses a newer one."""
OPTIONS_OF_THE_CALLER = frozenset(
    {
        *("progress", "on_event", "raise_on_failure", "journal"),
        *("skip_invalid", "allow_suspicious", "keep_labels", "retry_failed"),
    }
)
"""Batch options that are obeyed where the batch is called: the workers get checked items."""
_MAX_SHARD_SIZE = 500
"""A worker that dies gives back at most so many items, and the arguments of a shard stay a few kilobytes."""
_WAVES = 10
"""How often a full shard fills the concurrency limit: at the end of a shard some of the limit is unused."""
_SHARDS = 8
"""A small batch is divided into so many shards, so that several workers have some of it."""


@attrs.frozen(order=True)
class ShardItem:
    """One item of a shard."""

    number: int
    """The number of its entry in the journal."""
    index: int
    """Its index in the batch of the caller."""
    attempts: int
    """See `Plan.attempts`."""
    retry_failed: bool = False
    """See `Plan.retry_failed`."""

    @property
    def plan(self) -> Plan:
        """What the call wants of the item. A shard that runs again must not buy what its earlier run has bought."""
        return Plan(self.attempts, retry_failed=self.retry_failed)

    @property
    def retry(self) -> int | None:
        """The number of the attempt that tries the failed item again; None if the call asks for no retry."""
        return self.attempts if self.retry_failed else None

    def is_met_by(self, retry: int | None) -> bool:
        """Whether a shard with this retry of the same item does what this call wants of the item.

        A shard of an earlier call can still run, with the end of the job that is to be tried again.
        """
        return self.retry is None or (retry is not None and retry >= self.retry)


def choose_shard_size(count: int, *, max_concurrency: int) -> int:
    """How many of `count` items a shard has: enough to fill the concurrency limit, and few enough for several workers."""
    share = -(-count // _SHARDS)
    return min(max(share, max_concurrency), _WAVES * max_concurrency, max(_MAX_SHARD_SIZE, max_concurrency))


def split_into_shards(items: Iterable[ShardItem], *, size: int) -> list[tuple[ShardItem, ...]]:
    """The shards of a batch, by number, of nearly equal size and at most `size` items."""
    ordered = sorted(items)
    count = -(-len(ordered) // size)
    bounds = [len(ordered) * place // count for place in range(count + 1)] if count else [0]
    return [tuple(ordered[begin:end]) for begin, end in pairwise(bounds)]


def dump_shard(batch: int, items: Sequence[ShardItem]) -> dict[str, Any]:
    """The arguments of a queued shard."""
    return {"version": VERSION, "batch": batch, "items": [list(attrs.astuple(item)) for item in items]}


def load_items(arguments: Mapping[str, Any]) -> tuple[ShardItem, ...]:
    """The items of a shard.

    Raises:
        ConfigurationError: A newer release made the shard.
    """
    check_version(arguments["version"])
    return tuple(ShardItem(*fields) for fields in arguments["items"])


def collect_items(shards: Iterable[Mapping[str, Any]], batch: int) -> dict[int, ShardItem]:
    """By number, all items that the shards of a batch cover, from the arguments of the queued shards.

    A shard of a newer release counts as covering nothing: this release cannot read which items are in it.
    """
    return {
        item.number: item
        for arguments in shards
        if arguments.get("batch") == batch and arguments.get("version") == VERSION
        for item in load_items(arguments)
    }


def check_version(version: int) -> None:
    """Refuse what a newer release wrote.

    Raises:
        ConfigurationError: The version is newer.
    """
    if version > VERSION:
        raise ConfigurationError(
            f"The batch was made by a newer release of kling_async (version {version} of its shards, and this one reads "
            f"{VERSION}): update kling_async here."
        )


def dump_options(options: Mapping[str, Any], *, video_fields: Collection[str]) -> dict[str, Any]:
    """The batch options that the workers obey, as plain JSON values.

    Args:
        options: All options of the call.
        video_fields: The options that are fields of a request: the entries of the journal hold them already.

    Raises:
        ConfigurationError: A value cannot be sent to another machine, such as a function.
    """
    return {
        name: _dump_option(name, value)
        for name, value in sorted(options.items())
        if value is not None and name not in video_fields and name not in OPTIONS_OF_THE_CALLER
    }


def _dump_option(name: str, value: Any) -> Any:
    if name == "output":
        return _output_everywhere(value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _dump_option(name, part) for key, part in value.items()}
    raise ConfigurationError(
        f"{name}={quote_value(value)} cannot be sent to the workers: give "
        f"{'a mapping of model ids to US dollars' if name == 'prices' else 'a plain value'}."
    )


def _output_everywhere(output: Any) -> str:
    """The place for videos as each machine reads it: a folder with its whole path, or a URL as it is."""
    place = output_path(output, name="output")
    return place if isinstance(place, ObjectUrl) else os.path.abspath(place)  # noqa: PTH100 - keeps links
