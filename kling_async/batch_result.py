"""`BatchResult`: all results of a batch in input order, its report and its display."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import attrs

from kling_async._calls import public_call
from kling_async._field_docs import describe_fields
from kling_async.errors import KlingError
from kling_async.paths import ObjectUrl
from kling_async.results import Result

if TYPE_CHECKING:
    from kling_async.history import BatchHistory


def in_input_order(results: Iterable[Result], history: BatchHistory | None) -> BatchResult:
    """The results of a batch that came in any order."""
    return BatchResult(tuple(sorted(results, key=attrgetter("index"))), history=history)


@attrs.frozen
class BatchResult(Sequence[Result]):
    """All results of a batch, in input order."""

    results: tuple[Result, ...]
    history: BatchHistory | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    """When each item was submitted, running and saved; None in a batch that you put together yourself."""

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        return f"<BatchResult: {len(self.succeeded)} of {len(self)} succeeded>"

    def _repr_html_(self) -> str:
        from kling_async.notebook import Gallery

        return Gallery(self)._repr_html_()

    @property
    def succeeded(self) -> tuple[Result, ...]:
        """The results whose video was made."""
        return tuple(result for result in self.results if result.ok)

    @property
    def failed(self) -> tuple[Result, ...]:
        """All other results, in any state."""
        return tuple(result for result in self.results if not result.ok)

    @property
    def paths(self) -> tuple[Path | ObjectUrl, ...]:
        """The saved files, or their URLs in an object store, in input order, without the results that have none."""
        return tuple(result.path for result in self.results if result.path is not None)

    @property
    def cost_usd(self) -> Decimal | None:
        """The sum of the known costs; None if no cost is known."""
        known = [result.cost_usd for result in self.results if result.cost_usd is not None]
        return sum(known, Decimal(0)) if known else None

    def raise_for_failures(self) -> None:
        """Raise the errors of all failed results; do nothing if every video was made.

        Raises:
            ExceptionGroup: The error of every failed result, in input order.
        """
        errors = [
            result.error or KlingError(f"Item {result.index}: {result.state}.") for result in self.failed
        ]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(self)} videos were not made", errors)

    def to_records(self) -> list[dict[str, Any]]:
        """All results as flat plain JSON values, in input order, such as for `pandas.DataFrame`.

        The keys of each record are those of `Result.to_dict`.
        """
        return [result.to_dict() for result in self.results]

    @public_call
    def write_report(self, path: str | os.PathLike[str], *, signed_for: float | None = None) -> Path:
        """Write one HTML page about this batch, with its videos, its figures and a time line, and return its path.

        The page needs no server. It loads nothing but the videos, which it names relative to itself.

        Args:
            path: The file, best beside the videos; a missing folder is made.
            signed_for: Seconds, at most seven days, for which the page plays videos in an object store. The page then
                holds signed URLs: who has the page can read the videos for so long. Without this option the page plays
                such a video from the service, for as long as the service keeps the video.

        Raises:
            ConfigurationError: The store cannot sign.
            KlingError: The file cannot be written; a former file is left as it was.
        """
        from kling_async.report import write_report

        return write_report(self.results, path, history=self.history, signed_for=signed_for)


describe_fields(__name__)
