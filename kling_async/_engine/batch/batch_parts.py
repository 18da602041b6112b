"""The parts that all items of a batch share."""

from __future__ import annotations

import anyio
import attrs

from kling_async._engine.batch.result_stream import ResultStream
from kling_async._engine.batch.slots import Slots
from kling_async._engine.download.destination import Output
from kling_async._engine.emitter import Emitter
from kling_async._engine.session import LoopSession
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.uploader import Uploader
from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async.types import OnAmbiguous


@attrs.define(eq=False, kw_only=True)
class BatchParts:
    """The parts that all items of a batch share."""

    session: LoopSession
    ledger: Ledger
    slots: Slots
    emit: Emitter
    output: Output | None
    """Where each finished video is saved; None saves none."""
    on_ambiguous: OnAmbiguous
    retry_failed: bool
    uploader: Uploader
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    results: ResultStream = attrs.field(init=False)

    @results.default
    def _open_results(self) -> ResultStream:
        # Twice the limit: a full limit is in flight while the caller has not taken as many results.
        return ResultStream(anyio.Semaphore(2 * self.slots.limit.maximum, fast_acquire=True))
