"""The simulated worlds of the benchmarks are not part of the wheel: they are found at the end of the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
