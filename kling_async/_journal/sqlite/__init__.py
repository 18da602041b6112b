"""A journal in one file of SQLite, which one process writes."""

from __future__ import annotations
