"""Paid submits: sent once, reconciled when a reply is lost; lists and uploads."""

from __future__ import annotations
