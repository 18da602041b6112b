"""Progress displays, galleries and reports, made from events and values; only `terminal` needs the extra `cli`."""

from __future__ import annotations
