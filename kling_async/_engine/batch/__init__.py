"""One batch: its input, its items, its results, its ledger."""

from __future__ import annotations
