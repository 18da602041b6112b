"""`--dry-run`: the requests that a command would send, and their cost."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from kling_async.cli.journals import NAME, count_states, refuse_unusable_journal, step_of
from kling_async.cli.output import print_json, print_line, print_text, stderr, truncate
from kling_async.cli.run_config import JournalPlace, RunConfig
from kling_async.journal import Entry, Journal, NextStep
from kling_async.lines import money_text
from kling_async.requests import RequestLike

_MAX_SHOWN = 5
_MAX_CHARACTERS = 500


@attrs.frozen
class Spend:
    """What the entries of a journal cost."""

    known_usd: Decimal
    unpriced: Counter[str]
    """By model, the POSTs whose price no run knew."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Spend:
        """What these entries cost."""
        known, unpriced = Decimal(0), Counter[str]()
        for entry in entries:
            known += entry.cost_usd or 0
            if entry.is_unpriced:
                unpriced[entry.model] += entry.attempts
        return cls(known, unpriced)

    def at(self, prices: Mapping[str, Decimal]) -> Decimal:
        """US dollars, with these prices for what had none."""
        return self.known_usd + sum(
            (prices.get(model, Decimal(0)) * posts for model, posts in self.unpriced.items()), Decimal(0)
        )


@attrs.frozen
class Preview:
    """The entries of a batch that is not run."""

    entries: Sequence[Entry]
    earlier: Spend
    """What the entries of the journal cost."""

    @classmethod
    def of_journal(cls, entries: Sequence[Entry]) -> Preview:
        """The preview of a journal's own entries."""
        return cls(entries, Spend.of(entries))

    @classmethod
    async def of_requests(cls, requests: Iterable[RequestLike], journal: JournalPlace | None) -> Preview:
        """The preview of the valid requests, each as the journal has it, if there is a journal.

        Raises:
            ConfigurationError: The journal cannot be read.
            InvalidRequestError: A picture cannot be read.
        """
        with TemporaryDirectory() as empty, refuse_unusable_journal():
            kept = Journal(journal or Path(empty, NAME))
            entries = await kept.preview(requests, skip_invalid=True, allow_suspicious=True)
            earlier = Spend.of(kept.entries() if kept.exists() else ())
        return cls(entries, earlier)

    def show(self, config: RunConfig, *, is_json: bool) -> int:
        """Print what would be sent, and what it would cost; the exit status.

        Args:
            config: Its budget says what is submitted again, and what a video costs.
            is_json: Print an object for each item, on stdout.
        """
        steps = [step_of(entry, config) for entry in self.entries]
        sent = [entry for entry, step in zip(self.entries, steps, strict=True) if step is NextStep.SUBMIT]
        if is_json:
            for entry, step in zip(self.entries, steps, strict=True):
                print_json(_record(entry, step, config))
        else:
            for entry in sent[:_MAX_SHOWN]:
                print_line(truncate(f"{entry.model} {_text(entry.payload)}", _MAX_CHARACTERS))
            if len(sent) > _MAX_SHOWN:
                print_line(f"and {len(sent) - _MAX_SHOWN:,} more; --json shows all")
        for sentence in self._sentences(sent, config):
            print_text(sentence, stderr())
        return 0

    def _sentences(self, sent: Sequence[Entry], config: RunConfig) -> Iterator[str]:
        if words := count_states(self.entries, is_shared=isinstance(config.journal, Journal)):
            yield f"{config.journal}: {words}."
        yield f"{len(sent):,} of {len(self.entries):,} would be submitted. Nothing was sent."
        if sent:
            yield _describe_cost(sent, config.prices or {})
        if sent and config.budget.cap is not None:
            spent = self.earlier.at(config.prices or {})
            fitting = _count_affordable(sent, config.prices or {}, config.budget.cap - spent)
            yield (
                f"--max-cost {config.budget.max_cost} lets {fitting:,} of them through; "
                f"{money_text(spent)} was spent before."
            )


def _text(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, default=os.fspath)


def _record(entry: Entry, step: NextStep, config: RunConfig) -> dict[str, Any]:
    price = (config.prices or {}).get(entry.model) if step is NextStep.SUBMIT else None
    return {
        "index": entry.index,
        "key": entry.identity.key,
        "next": step,
        "model": entry.model,
        "payload": json.loads(_text(entry.payload)),
        "price_usd": None if price is None else str(price),
        "request_id": entry.request_id,
    }


def _describe_cost(sent: Sequence[Entry], prices: Mapping[str, Decimal]) -> str:
    """Such as `They cost $29.75 (85 at $0.35).`."""
    counts = Counter(entry.model for entry in sent)
    if unknown := [model for model in counts if model not in prices]:
        return f"What they cost is not known: give --price {unknown[0]}=USD."
    total = sum((prices[model] * count for model, count in counts.items()), Decimal(0))
    parts = (f"{count:,} at {money_text(prices[model])}" for model, count in counts.items())
    return f"They cost {money_text(total)} ({', '.join(parts)})."


def _count_affordable(sent: Sequence[Entry], prices: Mapping[str, Decimal], left_usd: Decimal) -> int:
    """How many of the entries can be bought, in their order, for the money that is left."""
    count = 0
    for entry in sent:
        if prices[entry.model] <= left_usd:
            left_usd -= prices[entry.model]
            count += 1
    return count
