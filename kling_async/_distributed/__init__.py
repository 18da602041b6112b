"""A batch over many machines: Procrastinate decides which worker runs a shard, and the shared journal what is bought."""

from __future__ import annotations
