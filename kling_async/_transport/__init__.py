"""The only room that opens network connections."""

from __future__ import annotations
