"""A batch under way, drawn from its events; needs the extra `cli` only when something is drawn."""

from __future__ import annotations
