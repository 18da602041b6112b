"""Decisions about when to wait, when to stop and how fast to send: values and functions without await, clock or rng."""

from __future__ import annotations
