"""Items: what a caller gives for one video, read as a `VideoRequest`."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import AsyncIterable, Hashable, Iterable, Mapping
from functools import lru_cache
from io import IOBase
from typing import Any, Protocol

import attrs

from kling_async import catalog
from kling_async._calls import suggest_name
from kling_async._cells import is_missing, to_json_value, to_plain
from kling_async._tables import row_of, rows_of
from kling_async.errors import InvalidRequestError
from kling_async.jobs import Job
from kling_async.lines import quote_value
from kling_async.requests import FIELDS, RequestLike, VideoRequest, read_mapping
from kling_async.slips import Slip, could_be_path, find_slip

_UNNAMED = re.compile(r"(unnamed:_\d+(_level_\d+)?|__index_level_\d+__|_duplicated_\d+)?", re.ASCII)
"""The normal form of no name, and of the names that pandas, PyArrow and Polars give to columns without one."""


class Table(Protocol):
    """A table of pandas, Polars or PyArrow. Its rows are the requests, and its columns are fields of `VideoRequest`."""

    @property
    def columns(self) -> Any:
        """The columns, or their names."""


def read_many(requests: object) -> Iterable[Any] | AsyncIterable[Any]:
    """The items of the input of a batch: the rows of a table, or the input itself.

    Raises:
        InvalidRequestError: Iterating over the input would not give its items.
    """
    requests = to_plain(requests)
    if isinstance(requests, VideoRequest | str | bytes | bytearray | memoryview):
        raise InvalidRequestError(
            f"Many requests are wanted, not one {type(requests).__name__}; put it into a list, "
            "or use generate() for a single video."
        )
    if isinstance(requests, IOBase) or (hasattr(requests, "read") and hasattr(requests, "readline")):
        raise InvalidRequestError(
            "An open file is no list of requests: give csv.DictReader(file) for a CSV, or "
            "[line.strip() for line in file if line.strip()] for a prompt in each line."
        )
    if (rows := rows_of(requests)) is not None:
        return rows
    if (row := row_of(requests)) is not None and (
        isinstance(requests, Mapping) or any(_normalize(name) in FIELDS for name in row)
    ):
        raise InvalidRequestError(_refuse_row(row, type(requests).__name__))
    if not isinstance(requests, AsyncIterable | Iterable):
        advice = (
            "; give the lines of the file, such as Path(...).read_text().splitlines()"
            if isinstance(requests, os.PathLike)
            else ""
        )
        raise InvalidRequestError(
            f"The requests must be an iterable or an async iterable, not {type(requests).__name__}{advice}."
        )
    return requests


def read_jobs(jobs: object) -> list[Job | str]:
    """The jobs that a caller gives to wait for, each a job or the id of one.

    Raises:
        InvalidRequestError: They are no iterable of these.
    """
    if isinstance(jobs, str | Job) or not isinstance(jobs, Iterable):
        raise InvalidRequestError(
            f"Many jobs are wanted, not one {type(jobs).__name__}; put it into a list, or use wait() for one job."
        )
    given = list(jobs)
    for index, job in enumerate(given):
        if not isinstance(job, str | Job):
            raise InvalidRequestError(f"Item {index} is a job or the id of one, not {_refuse_job(job)}.")
    return given


def read_job(job: object) -> Job | str:
    """The job that a caller gives to a call for one job, or its id.

    Raises:
        InvalidRequestError: It is neither.
    """
    if not isinstance(job, str | Job):
        raise InvalidRequestError(f"A job or the id of one is wanted, not {_refuse_job(job)}.")
    return job


def read_job_id(job: object) -> str:
    """The id of a job that a caller gives to a call that takes nothing but an id.

    Raises:
        InvalidRequestError: It is no text.
    """
    if not isinstance(job, str):
        raise InvalidRequestError(f"The id of a job is wanted, not {_refuse_job(job)}.")
    return job


def _refuse_job(job: object) -> str:
    """What a caller gave for a job, and what to give instead: a result has a job, and an entry of a journal has an id."""
    if job is None:
        return "None: the result of an item that was not submitted has no job"
    if isinstance(job, Iterable) and not isinstance(job, Mapping | bytes):
        return f"{quote_value(job)}: give one job at a time; wait_many() waits for many"
    held = [name for name in ("request_id", "job") if hasattr(job, name)]
    if not held:
        return quote_value(job)
    kind = type(job).__name__
    step = "has no job" if getattr(job, held[0]) is None else f"holds the job: give {kind.lower()}.{held[0]}"
    return f"this {kind}, which {step}"


def _refuse_item(item: object) -> str:
    """What a caller gave for a request, and what to give instead: a result has a request, and so has an entry of a journal."""
    kind = type(item).__name__
    if not (type(item).__module__.startswith("kling_async.") and hasattr(item, "request")):
        return quote_value(item)
    if hasattr(item, "identity"):
        return f"this {kind}: generate_many([{kind.lower()}], journal=...) continues it"
    return f"this {kind}, which holds the request: give {kind.lower()}.request, which is a new paid request"


def _refuse_row(row: Mapping[Any, Any], kind: str) -> str:
    columns = [value for value in row.values() if isinstance(value, list | tuple | Mapping)]
    if columns and len(columns) == len(row):
        return (
            f"A {kind} of columns is no list of requests: give its rows, such as pandas.DataFrame(table), or "
            "[dict(zip(table, row)) for row in zip(*table.values())]."
        )
    return (
        f"Many requests are wanted, not one {kind}; put it into a list, or use generate() for a single video."
    )


def request_from(item: RequestLike, options: Mapping[str, Any], *, keep_labels: bool = False) -> VideoRequest:
    """The request of an item, with a model. The options fill fields that the item leaves open and overwrite none.

    Args:
        item: A prompt, a request, or a mapping of `VideoRequest`'s fields, such as a row of a table.
        options: Fields of `VideoOptions`, checked by `public_call`.
        keep_labels: Keep the values of a row that are no fields of a request as its labels.

    Raises:
        InvalidRequestError: The item is of another type, has an unknown field, or breaks the model's rules.
    """
    options = {name: value for name, value in options.items() if not is_missing(to_plain(value))}
    options.setdefault("model", catalog.DEFAULT_MODEL)
    item = to_plain(item)
    if isinstance(item, str):
        return VideoRequest(item, **options)
    if isinstance(item, VideoRequest):
        return _fill(item, options)
    row = row_of(item)
    if row is None:
        raise InvalidRequestError(
            f"A request is a prompt, a VideoRequest or a mapping of its fields, not {_refuse_item(item)}."
        )
    fields = _fields_of(row, keep_labels=keep_labels)
    return VideoRequest(**{**options, **fields, **_merged_extra(options, fields)})


def read_one(item: RequestLike, options: Mapping[str, Any]) -> VideoRequest:
    """The request of a call for one video; see `request_from`.

    Args:
        item: A prompt, a request, or a mapping of `VideoRequest`'s fields.
        options: Fields of `SubmitOptions`.

    Raises:
        InvalidRequestError: See `request_from` and `check_meant`.
    """
    fields = {**options}
    is_meant = fields.pop("allow_suspicious", False)
    request = request_from(item, fields, keep_labels=fields.pop("keep_labels", False))
    if not is_meant:
        check_meant(request)
    return request


@attrs.frozen
class Columns:
    """The columns of a table, or the keys of a row, by what they hold."""

    fields: Mapping[Hashable, str]
    """The field of `VideoRequest` that each column fills."""
    further: tuple[Hashable, ...]
    """The columns that have another name."""
    index: tuple[Hashable, ...]
    """The columns without a name before all others: a table writes the numbers of its rows there."""
    unnamed: tuple[Hashable, ...]
    """The other columns without a name."""


@lru_cache(maxsize=64)
def read_columns(names: tuple[Hashable, ...]) -> Columns:
    """The columns with these names; case does not matter, and a space or a hyphen is an underscore."""
    fields: dict[Hashable, str] = {}
    further, index, unnamed = [], [], []
    for name in names:
        field = _normalize(name)
        if field in FIELDS:
            fields[name] = field
        elif _UNNAMED.fullmatch(field) is None:
            further.append(name)
        elif fields or further:
            unnamed.append(name)
        else:
            index.append(name)
    return Columns(fields, tuple(further), tuple(index), tuple(unnamed))


def _normalize(name: Hashable) -> str:
    if is_missing(name):
        return ""
    return str(name).removeprefix("\ufeff").strip().lower().replace(" ", "_").replace("-", "_")


def _fields_of(row: Mapping[Any, Any], *, keep_labels: bool) -> dict[str, Any]:
    """The given fields of a row by their names; what a table means by "nothing" is left out."""
    given = {name: plain for name, value in row.items() if not _is_gap(plain := to_plain(value))}
    columns = read_columns(tuple(row))
    fields: dict[str, Any] = {}
    for name, value in given.items():
        field = columns.fields.get(name)
        if field is None:
            continue
        if field in fields:
            raise InvalidRequestError(f"A request has two values for {field}: leave one out.")
        fields[field] = value
    further = {name: given[name] for name in columns.further if name in given}
    if further and not keep_labels:
        names = ", ".join(map(repr, further))
        raise InvalidRequestError(
            f"A request has no field {names}{suggest_name(next(iter(further)), FIELDS)}; put parameters that are not "
            f"among {', '.join(sorted(FIELDS))} into 'extra', or keep your own values with keep_labels=True."
        )
    if stray := [given[name] for name in columns.unnamed if name in given]:
        raise InvalidRequestError(
            f"{quote_value(stray[0])} stands in a column without a name: name the column, or put quotes "
            "around a text that holds the separator."
        )
    if "prompt" not in fields:
        raise InvalidRequestError(f"A request needs a prompt; {quote_value(dict(row))} has none.")
    if further:
        own = fields.get("labels")
        labels = {str(name): _to_label(value) for name, value in further.items()}
        fields["labels"] = {**labels, **own} if isinstance(own, Mapping) else own or labels
    return fields


def _to_label(value: object) -> Any:
    """The value, or its text if JSON has no such value, as of a time."""
    value = to_json_value(value)
    return value if not catalog.check_json("labels", value) else str(value)


def _is_gap(value: object) -> bool:
    """Whether a cell is empty, or each of the cells that `csv.DictReader` found beyond the header."""
    if isinstance(value, list | tuple):
        return all(is_missing(cell) for cell in value)
    return is_missing(value)


def find_request_slip(request: VideoRequest) -> Slip | None:
    """Why the prompt of a request looks like a mistake; None if it does not. `extra` can stand for an empty prompt."""
    return None if not request.prompt and request.extra else find_prompt_slip(request.prompt)


def find_prompt_slip(prompt: str) -> Slip | None:
    """Why a prompt looks like a mistake; None if it does not. This looks for a file of its name."""
    is_path = could_be_path(prompt) and os.path.exists(prompt.strip())  # noqa: PTH110 - never raises
    return find_slip(prompt, is_path=is_path)


def check_meant(request: VideoRequest) -> None:
    """Refuse a request whose prompt looks like a mistake.

    Raises:
        InvalidRequestError: The prompt looks like a mistake.
    """
    slip = find_request_slip(request)
    if slip is not None:
        raise InvalidRequestError(
            f"{slip.reason}: {slip.call}, or say allow_suspicious=True {slip.exception}."
        )


def find_picture_problem(request: VideoRequest) -> str | None:
    """Why the first unusable local picture of the request cannot be uploaded, such as "there is no file 'a.png'"; None if all can."""
    for picture in (getattr(request, field) for field in catalog.PICTURES):
        if not catalog.is_local_picture(picture):
            continue
        path = os.fspath(picture)
        try:
            status = os.stat(path)  # noqa: PTH116 - any name, also one that no file can have
        except (OSError, ValueError):
            return f"there is no file {path!r}"
        if not stat.S_ISREG(status.st_mode):
            return f"there is no file {path!r}"
        if (problem := _find_reading_problem(path)) is not None:
            return problem
    return None


def _find_reading_problem(path: str) -> str | None:
    """Why not a byte of a file can be read: a size tells nothing, for a file of the system has bytes without a size."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any name
            return None if file.read(1) else f"the picture {path!r} is an empty file"
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return None  # the upload waits for a free file descriptor
        return f"the picture {path!r} cannot be read ({error.strerror})"


def _fill(request: VideoRequest, options: Mapping[str, Any]) -> VideoRequest:
    filled = {
        name: value
        for name, value in options.items()
        if name != "extra" and value is not None and getattr(request, name) is None
    }
    if "extra" in options:
        merged = _merged_extra(options, {"extra": request.extra})
        if not isinstance(merged["extra"], Mapping) or len(merged["extra"]) > len(request.extra):
            filled |= merged
    return attrs.evolve(request, **filled) if filled else request


def _merged_extra(options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `extra` are filled one by one, so that an item may add to what all share; the request refuses a wrong value."""
    shared, own = read_mapping(options.get("extra")), read_mapping(fields.get("extra"))
    if isinstance(shared, Mapping) and isinstance(own, Mapping):
        return {"extra": {**shared, **own}}
    return {"extra": own if isinstance(shared, Mapping) else shared}
