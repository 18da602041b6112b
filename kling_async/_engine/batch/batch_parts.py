"""The parts that all items of a batch share."""

from __future__ import annotations

import anyio
import attrs

from kling_async._engine.batch.item_claims import ItemClaims
from kling_async._engine.batch.result_stream import ResultStream
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.batch.slots import Slots
from kling_async._engine.download.destination import Output
from kling_async._engine.emitter import Emitter
from kling_async._engine.session import LoopSession
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.uploader import Uploader
from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async._policy.concurrency_limit import ConcurrencyLimit


@attrs.define(eq=False, kw_only=True)
class BatchParts:
    """The parts that all items of a batch share."""

    session: LoopSession
    settings: BatchSettings
    ledger: Ledger
    emit: Emitter
    uploader: Uploader
    output: Output | None
    """Where each finished video is saved; None saves none."""
    breaker: CircuitBreaker = attrs.field(init=False, factory=CircuitBreaker)
    claims: ItemClaims = attrs.field(init=False)
    slots: Slots = attrs.field(init=False)
    results: ResultStream = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        most = self.settings.max_concurrency
        self.claims = ItemClaims(self.ledger.journal)
        self.slots = Slots(ConcurrencyLimit(most))
        # Twice the limit: a full limit is in flight while the caller has not taken as many results.
        self.results = ResultStream(anyio.Semaphore(2 * most, fast_acquire=True))
