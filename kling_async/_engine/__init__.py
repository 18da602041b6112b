"""Submits, polls, saves and records, as the policies decide; async, and without an HTTP library of its own."""

from __future__ import annotations
