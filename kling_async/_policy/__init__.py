"""When to wait, when to stop, how fast: values and functions; no await, no clock, no dice of their own."""

from __future__ import annotations
