from __future__ import annotations

import csv
import io
import sqlite3
from collections import UserDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidRequestError, Result, ResultState, VideoRequest, catalog, estimate
from kling_async.items import read_columns, read_many, read_one, request_from
from kling_async.journal import Entry, EntryState, Identity
from kling_async.requests import FIELDS

TOMORROW = "a-model-of-tomorrow"
MODEL = catalog.DEFAULT_MODEL
OFF = VideoRequest("x", model=MODEL, sound=False, duration=5, cfg_scale=0.5)


def test_options_make_a_plain_prompt_a_request():
    made = request_from("x", {"duration": 10, "sound": "on"})
    assert made == VideoRequest("x", model=MODEL, duration=10, sound=True)


def test_options_fill_what_a_request_leaves_open_and_overwrite_nothing():
    own = VideoRequest("x", model=MODEL, duration=5, sound=False, extra={"seed": 1}, key="k")
    filled = request_from(
        own, {"duration": 10, "sound": True, "mode": "pro", "model": TOMORROW, "extra": {"seed": 2, "n": 3}}
    )
    assert filled == VideoRequest(
        "x", model=MODEL, duration=5, sound=False, mode="pro", extra={"seed": 1, "n": 3}, key="k"
    )


def test_a_request_that_options_add_nothing_to_stays_itself():
    own = VideoRequest("x", model=MODEL, duration=5)
    assert request_from(own, {}) is own
    assert request_from(own, {"duration": 10, "extra": {}}) is own


def test_options_fill_what_a_mapping_leaves_open_and_overwrite_nothing():
    item = MappingProxyType({"prompt": "x", "duration": 5, "sound": None, "key": "k"})
    made = request_from(item, {"duration": 10, "sound": True, "extra": {"seed": 2}})
    assert made == VideoRequest("x", model=MODEL, duration=5, sound=True, extra={"seed": 2}, key="k")


@pytest.mark.parametrize("options", [{}, {"model": None}], ids=["absent", "none"])
@pytest.mark.parametrize("item", ["x", VideoRequest("x"), {"prompt": "x"}, {"prompt": "x", "model": None}])
def test_a_model_that_neither_item_nor_call_names_is_the_default(item, options):
    assert request_from(item, options) == VideoRequest("x", model=MODEL)


@pytest.mark.parametrize("item", ["x", VideoRequest("x"), {"prompt": "x"}])
def test_the_call_fills_the_model_that_an_item_leaves_open(item):
    assert request_from(item, {"model": TOMORROW}) == VideoRequest("x", model=TOMORROW)


def test_a_request_is_checked_once_its_model_is_known():
    open_ = VideoRequest("x", duration=7, resolution="4k")
    assert request_from(open_, {"model": TOMORROW}).duration == 7
    with pytest.raises(
        InvalidRequestError, match=r"^kling-v2-6: duration must be 5 or 10, not 7; .* no resolution"
    ):
        request_from(open_, {})


def test_a_request_without_a_model_is_checked_for_what_every_model_refuses():
    with pytest.raises(
        InvalidRequestError, match=r"^prompt must be text, not 5; sound must be True or False"
    ):
        VideoRequest(5, sound={1})


def test_a_mapping_may_name_its_own_model():
    options = {"model": "kling-v2-6"}
    assert request_from({"prompt": "x", "model": TOMORROW}, options).model == TOMORROW
    assert request_from({"prompt": "x"}, {"model": TOMORROW}).model == TOMORROW


class Held:
    request = "x"


RESULT = Result(index=0, request=VideoRequest("x"), state=ResultState.NOT_SUBMITTED)
ENTRY = Entry(
    number=1,
    identity=Identity(None, "f", 0),
    model="kling-v2-6",
    payload={"prompt": "x"},
    state=EntryState.NOT_SUBMITTED,
)


@pytest.mark.parametrize(
    "item, rule",
    [
        (b"x", "A request is a prompt, a VideoRequest or a mapping of its fields, not b'x'"),
        (None, "not None"),
        (
            {"prompt": "x", "durations": 5, 7: 1},
            r"no field 'durations', 7; did you mean 'duration'\?; put parameters .* into 'extra'",
        ),
        ({"duration": 5}, r"A request needs a prompt; \{'duration': 5\} has none"),
        ({"prompt": None}, "A request needs a prompt"),
        ({"prompt": "x", "extra": [1]}, "extra must be a mapping"),
        ({"prompt": "x", "duration": 7}, "duration must be 5 or 10"),
        (
            RESULT,
            r"not this Result, which holds the request: give result\.request, which is a new paid request\.$",
        ),
        (ENTRY, r"not this Entry: generate_many\(\[entry\], journal=\.\.\.\) continues it\.$"),
        (Held(), r"not <.*Held object"),
    ],
)
def test_an_item_that_is_no_request_is_refused(item, rule):
    with pytest.raises(InvalidRequestError, match=rule):
        request_from(item, {"extra": {"seed": 1}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(item=st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_an_item_becomes_a_request_or_is_refused(item):
    try:
        assert isinstance(request_from(item, {"duration": 5}), VideoRequest)
    except InvalidRequestError as error:
        assert error.message  # noqa: PT017 - either end is right, nothing else is


# Rows and tables


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": np.str_("x"), "sound": np.False_, "duration": np.int64(5), "cfg_scale": np.float32(0.5)},
        {"prompt": pa.scalar("x"), "sound": pa.scalar(False), "duration": pa.scalar(5.0), "cfg_scale": "0,5"},
        {"prompt": "x", "sound": "0", "duration": "5.0", "cfg_scale": Decimal("0.5"), "mode": pd.NA},
        {
            "prompt": "x",
            "sound": 0.0,
            "duration": 5.0,
            "cfg_scale": 0.5,
            "key": float("nan"),
            "image": pd.NaT,
        },
        {"Prompt": "x", "SOUND": "Off", " duration ": "5", "CFG Scale": "0.5", "Negative-Prompt": ""},
        {"\ufeffprompt": "x", "sound": "FALSE", "duration": "5", "cfg_scale": "0.5", "model": np.ma.masked},
        {
            "Unnamed: 0": 0,
            "": 7,
            "prompt": "x",
            "sound": "no",
            "duration": "5",
            "cfg_scale": ".5",
            None: ["", " "],
        },
        {
            "prompt": "x",
            "sound": "no",
            "duration": "5",
            "cfg_scale": ".5",
            "Unnamed: 4": float("nan"),
            "": "",
        },
        pd.Series({"prompt": "x", "sound": False, "duration": 5.0, "cfg_scale": 0.5, "extra": None}),
        pa.scalar({"prompt": "x", "sound": False, "duration": 5, "cfg_scale": 0.5, "extra": None}),
        UserDict(prompt="x", sound=False, duration=5, cfg_scale=0.5),
    ],
)
def test_a_row_is_read_as_tables_have_it(row):
    made = request_from(row, {})
    assert made == OFF
    assert [type(value) for value in (made.prompt, made.sound, made.duration)] == [str, bool, int]


@pytest.mark.parametrize("scale", [np.float32(0.1), np.float16(0.1), np.longdouble("0.1"), pa.scalar(0.1)])
def test_a_number_of_few_bits_is_the_shortest_number_that_it_stands_for(scale):
    assert VideoRequest("x", cfg_scale=scale).cfg_scale == 0.1


def test_a_scalar_whose_text_is_no_number_is_read_by_its_value():
    class Tensor:
        ndim = 0

        def item(self):
            return 0.5

        def __str__(self):
            return "tensor(0.5000)"

    assert VideoRequest("x", cfg_scale=Tensor()).cfg_scale == 0.5


def test_values_within_extra_are_read_too():
    extra = {"seed": np.int64(7), "list": [np.float64(0.5), (np.bool_(True),)], "more": {"n": pa.scalar(1)}}
    assert VideoRequest("x", extra=extra).extra == {"seed": 7, "list": [0.5, [True]], "more": {"n": 1}}


def test_options_are_read_like_the_values_of_a_row():
    assert request_from("x", {"duration": np.int64(5), "sound": pd.NA, "model": ""}) == VideoRequest(
        "x", model=MODEL, duration=5
    )


@pytest.mark.parametrize("item", [{"prompt": "x"}, VideoRequest("x"), "x"])
@pytest.mark.parametrize(
    "shared", ['{"seed": 1, "tags": [2]}', {"seed": 1, "tags": (2,)}], ids=["text", "mapping"]
)
@pytest.mark.parametrize("own", [None, {"seed": 7}, '{"seed": 7}'], ids=["none", "mapping", "text"])
def test_each_form_of_extra_adds_to_what_all_items_share(item, shared, own):
    if own is not None:
        item = {"prompt": "x", "extra": own} if item != VideoRequest("x") else VideoRequest("x", extra=own)
    seed = 1 if own is None else 7
    assert request_from(item, {"extra": shared}).extra == {"seed": seed, "tags": [2]}


@pytest.mark.parametrize(
    "item",
    ["x", VideoRequest("x"), {"prompt": "x"}, {"prompt": "x", "extra": {"seed": 7}}],
    ids=["prompt", "request", "row", "full"],
)
@pytest.mark.parametrize(
    "shared", [5, [1], "no JSON", np.array([1]), pd.Series([1, 2])], ids=lambda value: type(value).__name__
)
def test_a_shared_extra_that_is_no_mapping_is_refused_with_each_kind_of_item(item, shared):
    with pytest.raises(InvalidRequestError, match=r"extra (must be a mapping|is not JSON)"):
        request_from(item, {"extra": shared})


@pytest.mark.parametrize(
    "value",
    [
        np.array([]),
        np.array([5, 10]),
        pd.Series([5]),
        pd.DataFrame({"a": [5]}),
        pl.Series([5]),
        Decimal("sNaN"),
    ],
    ids=["empty", "array", "column", "table", "polars", "signal"],
)
@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("prompt", "model")])
@pytest.mark.parametrize("model", [MODEL, "a-model-of-tomorrow"])
def test_a_whole_column_is_no_value_of_one_field(field, value, model):
    for item, options in (({"prompt": "x", field: value}, {}), ("x", {field: value})):
        with pytest.raises(InvalidRequestError, match=f"{field} must be |takes no {field} "):
            request_from(item, {"model": model, **options})


def test_a_value_that_cannot_be_compared_is_given():
    class Touchy:
        def __ne__(self, other):
            raise RuntimeError

        __hash__ = None

    with pytest.raises(InvalidRequestError, match="mode must be"):
        VideoRequest("x", model=MODEL, mode=Touchy())


@pytest.mark.parametrize(
    "row, rule",
    [
        (
            {"prompt": "A moon", "": " rising over the sea"},
            "' rising over the sea' stands in a column without a name",
        ),
        ({"prompt": "A moon", None: [" rising"]}, r"\[' rising'\] stands in a column without a name"),
        ({"prompt": "A moon", "Prompt": "A sun"}, "two values for prompt"),
        ({"prompt": float("nan"), "duration": 5}, "A request needs a prompt"),
        ({"prompt": " "}, "A request needs a prompt"),
        ({"prompt": 7}, "prompt must be text, not 7"),
        (
            {"prompt": "A moon", "concept": "sky"},
            "no field 'concept'; .* keep your own values with keep_labels=True",
        ),
    ],
)
def test_a_row_that_may_mean_another_video_is_refused(row, rule):
    with pytest.raises(InvalidRequestError, match=rule):
        request_from(row, {})


def test_columns_are_read_by_their_names():
    columns = read_columns(("Unnamed: 0", "", "Prompt", "concept", "Unnamed: 3", None, 7, float("nan")))
    assert columns.fields == {"Prompt": "prompt"}
    assert columns.further == ("concept", 7)
    assert columns.index == ("Unnamed: 0", "")
    assert columns.unnamed[:2] == ("Unnamed: 3", None)
    assert len(columns.unnamed) == 3


ROWS = [
    {"prompt": "A comet", "duration": 5, "sound": None},
    {"prompt": "A moon", "duration": None, "sound": True},
]
MADE = [VideoRequest("A comet", model=MODEL, duration=5), VideoRequest("A moon", model=MODEL, sound=True)]


def rows_of_sqlite():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute(
        "SELECT 'A comet' AS prompt, 5 AS duration, NULL AS sound UNION ALL SELECT 'A moon', NULL, 1"
    ).fetchall()
    connection.close()
    return rows


TABLES = {
    "pandas": pd.DataFrame(ROWS),
    "pandas with NA": pd.DataFrame(ROWS).convert_dtypes(),
    "pandas from a CSV with its index": pd.read_csv(io.StringIO(pd.DataFrame(ROWS).to_csv())),
    "polars": pl.DataFrame(ROWS),
    "pyarrow": pa.Table.from_pylist(ROWS),
    "a batch of pyarrow": pa.Table.from_pylist(ROWS).to_batches()[0],
    "rows of pandas": [row for _, row in pd.DataFrame(ROWS).iterrows()],
    "a reader of a CSV": csv.DictReader(io.StringIO("prompt,duration,sound\nA comet,5.0,,\nA moon,,1\n")),
    "rows of SQLite": rows_of_sqlite(),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_items_of_a_table_are_its_rows(table):
    assert [request_from(row, {}) for row in read_many(table)] == MADE


def test_a_table_has_an_estimate():
    assert [item.request for item in estimate(pl.DataFrame(ROWS)).items] == MADE


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["A comet", "A moon"]),
        pl.Series(["A comet", "A moon"]),
        pa.chunked_array([["A comet"], ["A moon"]]),
        np.array(["A comet", "A moon"]),
        pd.Index(["A comet", "A moon"]),
    ],
    ids=lambda column: f"{type(column).__module__}.{type(column).__name__}",
)
def test_the_items_of_a_column_are_its_values(column):
    assert [request_from(item, {}).prompt for item in read_many(column)] == ["A comet", "A moon"]


class Interchangeable:
    def __dataframe__(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    "requests, advice",
    [
        ("a prompt", "put it into a list, or use generate()"),
        (b"a prompt", "not one bytes; put it into a list"),
        (VideoRequest("a prompt"), "put it into a list, or use generate()"),
        ({"prompt": "a prompt"}, "not one dict; put it into a list, or use generate()"),
        ({"a prompt": 1}, "not one dict; put it into a list"),
        ({}, "not one dict"),
        ({"prompt": ["a", "b"], "duration": [5, 10]}, r"A dict of columns .* pandas.DataFrame\(table\)"),
        ({"prompt": {0: "a", 1: "b"}}, "A dict of columns"),
        (pd.Series({"prompt": "a prompt", "model": MODEL}), "not one Series; put it into a list"),
        (rows_of_sqlite()[0], "not one Row; put it into a list"),
        (pl.LazyFrame(ROWS), r"give table.collect\(\)"),
        (Interchangeable(), r"give pyarrow.table\(table\)"),
        (pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), "more than one column 'prompt'"),
        (io.StringIO("a cat\n"), r"An open file .* csv.DictReader\(file\)"),
        (Path("prompts.txt"), r"read_text\(\).splitlines\(\)"),
        (5, "must be an iterable or an async iterable, not int."),
        (np.array("a prompt"), "not one str; put it into a list"),
        (np.str_("a prompt"), "not one str; put it into a list"),
    ],
)
def test_what_iterates_over_something_else_than_its_items_is_refused_with_the_right_call(requests, advice):
    with pytest.raises(InvalidRequestError, match=advice):
        read_many(requests)


@pytest.mark.parametrize("item", [(0, pd.Series({"prompt": "x"})), pd.DataFrame(ROWS), np.array(["x"])])
def test_an_item_that_is_a_table_or_a_tuple_is_refused(item):
    with pytest.raises(InvalidRequestError, match="A request is a prompt"):
        request_from(item, {})


def test_groups_of_a_table_are_no_items():
    (group, *_) = read_many(pd.DataFrame(ROWS).groupby("prompt"))
    with pytest.raises(InvalidRequestError, match="A request is a prompt"):
        request_from(group, {})


def test_an_estimate_reads_no_async_iterable():
    async def endless():
        yield "x"

    with pytest.raises(InvalidRequestError, match=r"estimate\(\) reads no async iterable"):
        estimate(endless())


def test_further_values_of_a_row_are_its_labels_if_they_are_asked_for():
    day = datetime(2026, 11, 26, tzinfo=UTC)
    row = {"prompt": "A moon", "concept": "sky", 3: np.int64(3), "gap": float("nan"), "day": day}
    labels = {"concept": "sky", "3": 3, "day": str(day)}
    assert request_from(row, {}, keep_labels=True).labels == labels
    own = {**row, "labels": {"concept": "mine", "more": True}}
    assert request_from(own, {}, keep_labels=True).labels == {**labels, "concept": "mine", "more": True}
    with pytest.raises(InvalidRequestError, match="labels must be a mapping with text keys"):
        request_from({**row, "labels": 5}, {}, keep_labels=True)


def test_labels_are_kept_by_every_call_that_reads_rows():
    table = pd.DataFrame({"prompt": ["A moon"], "concept": ["sky"]})
    assert estimate(table, keep_labels=True).items[0].request.labels == {"concept": "sky"}
    assert read_one(next(iter(table.to_dict("records"))), {"keep_labels": True}).labels == {"concept": "sky"}
