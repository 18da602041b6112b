"""The types that public signatures name: what a call takes, and the protocols that a caller can implement."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Literal, TypeAlias

from kling_async._journal.entry import Entry
from kling_async._policy.budget import Prices
from kling_async._policy.polling import UseLists
from kling_async._transport.base import Reply, Request, Sink, StreamedReply, Transport
from kling_async.events import Listener
from kling_async.requests import RequestLike, VideoOptions

__all__ = [
    "Listener",
    "OnAmbiguous",
    "Prices",
    "Progress",
    "Reply",
    "Request",
    "RequestLike",
    "Requests",
    "Sink",
    "StreamedReply",
    "Transport",
    "UseLists",
    "VideoOptions",
]

Requests: TypeAlias = Iterable[RequestLike | Entry] | AsyncIterable[RequestLike | Entry]
"""The input of a batch: requests, or entries of the batch's journal, which continue from where they stand."""

OnAmbiguous: TypeAlias = Literal["report", "resend"]
"""Report a paid POST that cannot be reconciled as `AMBIGUOUS`, or send it again at the risk of paying twice."""

Progress: TypeAlias = bool | Literal["auto"]
"""Draw, do not draw, or draw in a notebook and where stderr is a terminal."""
