"""The types that public signatures name: what a call takes, and the protocols that a caller can implement."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable
from decimal import Decimal
from typing import Literal, TypeAlias, TypedDict

from kling_async._field_docs import describe_fields
from kling_async._journal.entry import Entry
from kling_async._policy.budget import Prices
from kling_async._policy.polling import PollingPolicy, UseLists
from kling_async._policy.retry import RetryPolicy
from kling_async._transport.base import Reply, Request, Sink, StreamedReply, Transport
from kling_async.events import Listener
from kling_async.items import Table
from kling_async.paths import ObjectUrl
from kling_async.requests import RequestLike, RequestRow, VideoOptions

__all__ = [
    "BatchOptions",
    "ClientOptions",
    "GenerateOptions",
    "Listener",
    "ObjectUrl",
    "OnAmbiguous",
    "Prices",
    "Progress",
    "Reply",
    "Request",
    "RequestLike",
    "RequestRow",
    "Requests",
    "Sink",
    "StreamedReply",
    "SubmitOptions",
    "Table",
    "Transport",
    "UseLists",
    "VideoOptions",
    "WaitManyOptions",
    "WaitOptions",
]

Requests: TypeAlias = Iterable[RequestLike | Entry] | AsyncIterable[RequestLike | Entry] | Table
"""The requests of a batch, a table of them, or entries of its journal, which continue from where they stand."""

OnAmbiguous: TypeAlias = Literal["report", "resend_absent", "resend"]
"""Report a paid POST that cannot be reconciled as `AMBIGUOUS`, send it again if the service's list proves that it never
arrived, or send it again in any case, at the risk of paying twice."""

Progress: TypeAlias = bool | Literal["auto"]
"""Draw, do not draw, or draw in a notebook and where stderr is a terminal."""


class WaitOptions(TypedDict, total=False):
    """The options of a wait."""

    wait_timeout: float | None
    """Seconds after which the wait ends with `WaitTimeoutError`; None is no limit.

    Without this option `PollingPolicy.wait_timeout` holds.
    """


class SubmitOptions(VideoOptions, total=False):
    """The options of `KlingClient.submit`: the fields that the request leaves open, and what may be sent."""

    allow_suspicious: bool
    """Send a prompt that looks like a mistake.

    Without this option a call refuses a prompt that is the name of a file or of a field, a comment, a URL, JSON, or
    a word for no value such as `nan`: the service would make a video of it, and charge for it.
    """
    keep_labels: bool
    """Keep the values of a row that are no fields of a request as its `labels`.

    Without this option a call refuses such a row: the name of a field can be misspelt.
    """


class WaitManyOptions(WaitOptions, total=False):
    """The options of `KlingClient.wait_many`."""

    progress: Progress
    """Whether to draw counts and a bar, as in `BatchOptions`."""


class GenerateOptions(SubmitOptions, WaitManyOptions, total=False):
    """The options of `KlingClient.generate`: those of a submit and of a wait, and the place of the video."""

    output: str | os.PathLike[str] | None
    """The file or the folder in which the video is saved, or the URL of an object store such as `s3://bucket/eagle.mp4`, as for
    `KlingClient.download`. None saves nothing."""


class ClientOptions(TypedDict, total=False):
    """The options that a view of a client can change; what is left out stays as it is."""

    timeout: float
    """Seconds for one HTTP request."""
    polling: PollingPolicy
    """How often jobs are polled, and how long a wait can last."""
    retry: RetryPolicy
    """How often calls that are safe to repeat are repeated."""
    on_event: Listener | None
    """Called with every event of the view, in place of the client's own; None calls nothing."""


class BatchOptions(SubmitOptions, total=False):
    """The options of a batch, and those of `SubmitOptions` for all its requests."""

    max_concurrency: int
    """How many jobs can be in flight at the service at once; 20 by default."""
    output: str | os.PathLike[str] | None
    """The folder in which the batch saves each video as soon as the video is finished. None saves nothing.

    Or the URL of a prefix in an object store, such as `s3://bucket/videos`, `gs://bucket/videos` or
    `az://container/videos`; it needs the extra `stores`, and takes its credentials from the environment.
    """
    ascii_names: bool
    """Whether the names of videos have ASCII letters and digits only. By default they show the words of a prompt in any script."""
    direct_upload: bool
    """Send each video to the object store while it comes, without a file on this machine. A cut download continues within
    the batch; after a crash it begins again."""
    journal: str | os.PathLike[str] | None
    """The file, the URL of a PostgreSQL database, or the `kling_async.journal.Journal`, in which the batch records each submit before the submit is sent, and its outcome afterwards.

    Run the same call with the same journal again, also after the process was killed: the batch continues from
    where it stopped, and pays for nothing twice. A changed request is a new one. Give equal requests a
    `VideoRequest.key` each to tell them apart. Batches of several processes can share a database.
    """
    max_cost_usd: Decimal | float | None
    """The most that the batch may spend, in US dollars, earlier runs of its journal included. Needs `prices`.

    The batch sends no POST that would exceed it.
    """
    prices: Prices | None
    """The price of one video in US dollars: by model id, as a function of the request, or `"catalog"`.

    `"catalog"` takes the list prices that this release knows. Some of them are estimates: see `estimate`.
    """
    on_ambiguous: OnAmbiguous
    """What to do with a paid POST that cannot be reconciled with the service's list.

    `"report"`, the default, reports the item as `AMBIGUOUS`. `"resend_absent"` sends the item again if the list proves
    that the service has no such job; the batch waits for the proof until some three minutes after the answer was given
    up. `"resend"` sends the item again in any case, at the risk of paying twice. An item is sent again once.
    """
    retry_failed: bool
    """Submit again each item that failed in an earlier run of the journal. It is paid for again."""
    skip_invalid: bool
    """Leave invalid requests out and report each as a result with its error.

    By default an invalid request in a collection means that the batch sends nothing, and an invalid request from
    an iterator that the batch sends nothing more.
    """
    progress: Progress
    """Whether to draw counts and a bar: below a notebook's cell, else on stderr.

    `"auto"`, the default, draws in a notebook, and where stderr is a terminal and rich is installed.
    """
    on_event: Listener | None
    """Called with every event of this batch, besides the client's own `on_event`."""


describe_fields(__name__)
