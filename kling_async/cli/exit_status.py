"""The exit statuses of the command line, besides 0 for success."""

from __future__ import annotations

FAILED = 1
"""Something was not done."""
UNUSABLE = 2
"""Nothing started: wrong usage, input or settings."""
