"""What a command would send and what that would cost, without sending it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs

from kling_async._display.page import money_text
from kling_async._engine.batch.item_identifier import ItemIdentifier
from kling_async._engine.batch.resume import NextStep
from kling_async._journal.entry import Entry
from kling_async._policy.budget import Budget
from kling_async._wire.codec import payload_of
from kling_async.cli.journals import count_states, journal_exists, read_entries, step_name
from kling_async.cli.output import print_json, print_line, print_text, stderr, truncate
from kling_async.cli.run_config import RunConfig
from kling_async.errors import BudgetExceededError
from kling_async.requests import VideoRequest

_MAX_SHOWN = 5
_MAX_CHARACTERS = 500


@attrs.frozen(kw_only=True)
class PlannedItem:
    """One item as it stands before a run."""

    model: str
    payload: Mapping[str, Any]
    key: str | None
    entry: Entry | None
    """What the journal knows of it."""


@attrs.frozen
class Preview:
    """All items of a batch that is not run."""

    items: Sequence[PlannedItem]
    spent_usd: Decimal
    """What all of the journal cost so far, as far as it is known."""

    @classmethod
    def of_entries(cls, entries: Sequence[Entry]) -> Preview:
        """Of all that a journal holds."""
        items = [
            PlannedItem(model=entry.model, payload=entry.payload, key=entry.identity.key, entry=entry)
            for entry in entries
        ]
        return cls(items, _total_cost(entries))

    @classmethod
    async def of_requests(cls, requests: Iterable[VideoRequest], journal: Path | None) -> Preview:
        """Of some requests, each beside what the journal knows of it, if there is one.

        Raises:
            ConfigurationError: The journal cannot be read.
            InvalidRequestError: A picture cannot be read.
        """
        entries = list(read_entries(journal)) if journal_exists(journal) else []
        known = {entry.identity: entry for entry in entries}
        identities = ItemIdentifier()
        items = [
            PlannedItem(
                model=request.model,
                payload=payload_of(request),
                key=request.key,
                entry=known.get(await identities.of(request)),
            )
            for request in requests
        ]
        return cls(items, _total_cost(entries))

    def show(self, config: RunConfig, *, is_json: bool) -> int:
        """Tell what would be sent, and what it would cost; the exit status.

        Args:
            config: Its terms say what is submitted again, and what it costs.
            is_json: Tell an object for each item, on stdout.
        """
        steps = [step_name(item.entry, config) for item in self.items]
        sent = [item for item, step in zip(self.items, steps, strict=True) if step == NextStep.SUBMIT]
        if is_json:
            for index, (item, step) in enumerate(zip(self.items, steps, strict=True)):
                print_json(_record(index, item, step, config))
        else:
            for item in sent[:_MAX_SHOWN]:
                print_line(truncate(f"{item.model} {_text(item.payload)}", _MAX_CHARACTERS))
            if len(sent) > _MAX_SHOWN:
                print_line(f"and {len(sent) - _MAX_SHOWN:,} more; --json shows all")
        for sentence in self._sentences(sent, config):
            print_text(sentence, stderr())
        return 0

    def _sentences(self, sent: Sequence[PlannedItem], config: RunConfig) -> Iterator[str]:
        if words := count_states(item.entry for item in self.items):
            yield f"{config.journal}: {words}."
        yield f"{len(sent):,} of {len(self.items):,} would be submitted. Nothing was sent."
        if sent:
            yield _describe_cost(sent, config.prices or {})
        if sent and config.budget.cap is not None:
            fitting = _count_affordable(sent, Budget(config.prices, config.budget.cap, self.spent_usd))
            yield (
                f"--max-cost {config.budget.max_cost} lets {fitting:,} of them through; "
                f"{money_text(self.spent_usd)} was spent before."
            )


def _text(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, default=os.fspath)


def _record(index: int, item: PlannedItem, step: str, config: RunConfig) -> dict[str, Any]:
    price = (config.prices or {}).get(item.model) if step == NextStep.SUBMIT else None
    return {
        "index": index,
        "key": item.key,
        "next": step,
        "model": item.model,
        "payload": json.loads(_text(item.payload)),
        "price_usd": None if price is None else str(price),
        "request_id": item.entry.request_id if item.entry is not None else None,
    }


def _describe_cost(sent: Sequence[PlannedItem], prices: Mapping[str, Decimal]) -> str:
    """Such as `They cost $29.75 (85 at $0.35).`."""
    counts = Counter(item.model for item in sent)
    if unknown := [model for model in counts if model not in prices]:
        return f"What they cost is not known: --price {unknown[0]}=USD tells it."
    total = sum((prices[model] * count for model, count in counts.items()), Decimal(0))
    parts = (f"{count:,} at {money_text(prices[model])}" for model, count in counts.items())
    return f"They cost {money_text(total)} ({', '.join(parts)})."


def _count_affordable(sent: Sequence[PlannedItem], budget: Budget) -> int:
    """How many of them the budget has room for."""
    count = 0
    for item in sent:
        assert isinstance(budget.prices, Mapping), "a cap has prices"
        try:
            budget.reserve(budget.prices[item.model])
        except BudgetExceededError:
            continue
        count += 1
    return count


def _total_cost(entries: Iterable[Entry]) -> Decimal:
    return sum((entry.cost_usd for entry in entries if entry.cost_usd is not None), Decimal(0))
