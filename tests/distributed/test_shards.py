from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._distributed.shards import (
    VERSION,
    ShardItem,
    check_version,
    choose_shard_size,
    collect_items,
    dump_options,
    dump_shard,
    load_items,
    split_into_shards,
)
from kling_async.errors import ConfigurationError
from kling_async.requests import VideoOptions

FIELDS = VideoOptions.__annotations__


def make_items(count):
    return [ShardItem(number, index=number - 1, attempts=1) for number in range(1, count + 1)]


@given(st.sets(st.integers(1, 10_000)), st.integers(1, 50))
def test_shards_have_each_item_once_and_are_of_nearly_equal_size(numbers, size):
    shards = split_into_shards([ShardItem(number, number, attempts=1) for number in numbers], size=size)

    assert [item.number for shard in shards for item in shard] == sorted(numbers)
    sizes = {len(shard) for shard in shards}
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1 and 0 not in sizes)


@pytest.mark.parametrize(
    "count, max_concurrency, size",
    [
        (3, 20, 20),  # one shard
        (60, 20, 20),  # three shards for three workers
        (400, 20, 50),
        (100_000, 20, 200),
        (100_000, 100, 500),
        (100_000, 1_000, 1_000),  # a shard that cannot fill the limit would waste it
        (10, 1, 2),
    ],
)
def test_a_shard_fills_the_concurrency_limit_and_leaves_some_for_other_workers(count, max_concurrency, size):
    assert choose_shard_size(count, max_concurrency=max_concurrency) == size


def test_a_shard_survives_json():
    items = (ShardItem(7, 0, attempts=1), ShardItem(9, 3, attempts=2, retry_failed=True))

    assert load_items(json.loads(json.dumps(dump_shard(5, items)))) == items


def test_the_shards_of_a_batch_cover_their_numbers_and_no_others():
    mine, others = dump_shard(1, make_items(2)), dump_shard(2, make_items(5))

    assert set(collect_items([mine, others], 1)) == {1, 2}
    assert collect_items([{**mine, "version": VERSION + 1}], 1) == {}
    assert collect_items([{}], 1) == {}


@pytest.mark.parametrize(
    "wanted, retry, is_met",
    [
        (ShardItem(1, 0, attempts=1), None, True),
        (ShardItem(1, 0, attempts=1), 2, True),
        (ShardItem(1, 0, attempts=2, retry_failed=True), None, False),
        (ShardItem(1, 0, attempts=2, retry_failed=True), 2, True),
        (ShardItem(1, 0, attempts=3, retry_failed=True), 2, False),
        (ShardItem(1, 0, attempts=2, retry_failed=True), 3, True),
    ],
)
def test_a_retry_is_met_by_a_shard_that_retries_as_late_an_attempt(wanted, retry, is_met):
    assert wanted.is_met_by(retry) is is_met


def test_a_newer_shard_is_refused():
    with pytest.raises(ConfigurationError, match="made by a newer release of kling_async"):
        load_items({**dump_shard(1, make_items(1)), "version": VERSION + 1})
    check_version(VERSION)


def test_workers_get_the_options_that_they_obey_and_no_others(monkeypatch):
    options = {
        "duration": 5,
        "model": "kling-v2-6",
        "max_concurrency": 50,
        "output": "s3://bucket/videos",
        "max_cost_usd": Decimal("0.70"),
        "prices": {"kling-v2-6": Decimal("0.35")},
        "on_ambiguous": "resend_absent",
        "ascii_names": True,
        "retry_failed": True,
        "skip_invalid": True,
        "allow_suspicious": True,
        "keep_labels": True,
        "progress": False,
        "on_event": print,
    }

    shared = dump_options(options, video_fields=FIELDS)

    assert json.loads(json.dumps(shared)) == {
        "max_concurrency": 50,
        "output": "s3://bucket/videos",
        "max_cost_usd": "0.70",
        "prices": {"kling-v2-6": "0.35"},
        "on_ambiguous": "resend_absent",
        "ascii_names": True,
    }


def test_a_folder_means_the_same_on_every_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert dump_options({"output": "videos"}, video_fields=FIELDS) == {"output": str(tmp_path / "videos")}
    assert dump_options({"output": tmp_path}, video_fields=FIELDS) == {"output": str(tmp_path)}
    assert dump_options({"output": "~/v"}, video_fields=FIELDS) == {"output": str(tmp_path / "home" / "v")}
    assert dump_options({"output": None}, video_fields=FIELDS) == {}


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            {"prices": lambda _: Decimal(1)},
            "prices=.* cannot be sent to the workers: give a mapping of model ids",
        ),
        ({"prices": {"m": object()}}, "prices=<object.* cannot be sent to the workers: give a mapping"),
    ],
)
def test_what_no_other_machine_can_have_is_refused(options, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        dump_options(options, video_fields=FIELDS)
