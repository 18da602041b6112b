"""The page about security names a test for each thing that it promises."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/explanation/security.md").read_text(encoding="utf-8")
PROMISES = PAGE.partition("\n## Your part")[0].partition("\n## ")[2]


def test_each_paragraph_of_the_page_is_followed_by_the_names_of_tests_that_exist():
    blocks = [block for block in PROMISES.split("\n\n")[1:] if block and not block.startswith("## ")]
    assert len(blocks) > 10
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("test_*.py"))
    for block in blocks:
        comment = re.fullmatch(r"[^<]+\n<!-- ([\w ]+) -->\s*", block)
        assert comment is not None, block
        assert [name for name in comment[1].split() if f"def {name}(" not in tests] == []
