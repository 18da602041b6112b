"""Requests to bytes and replies to values; pure."""

from __future__ import annotations
