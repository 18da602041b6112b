"""The commands of `kling-async`; the only room that prints."""

from __future__ import annotations
