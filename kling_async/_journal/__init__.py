"""What was meant, sent, got and saved; survives `kill -9`."""

from __future__ import annotations
