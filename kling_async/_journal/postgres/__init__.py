"""A journal in PostgreSQL, which several processes share."""

from __future__ import annotations
