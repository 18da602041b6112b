"""Models to bytes and back; pure."""

from __future__ import annotations
