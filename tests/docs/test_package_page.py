"""What a package index shows: the README alone, the tested versions of Python, addresses that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
TARGET = re.compile(r"\]\(([^)]+)\)")


def page_of_the_package():
    """The README as the build rewrites it."""
    text = README
    for rule in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    return text


def test_the_page_has_no_link_to_a_file_of_the_project_and_names_the_files():
    files = [target for target in TARGET.findall(README) if not target.startswith("https:")]
    page = page_of_the_package()

    assert "docs/tutorial/quick-start.md" in files
    assert [target for target in TARGET.findall(page) if not target.startswith("https:")] == []
    assert all(f"(`{file}`)" in page for file in files if not file.endswith(".svg"))
    assert "![" not in page


def test_the_readme_has_no_directive_that_only_sphinx_knows():
    assert re.findall(r"^(?:```\{|:::|%)", README, re.MULTILINE) == []


def test_the_files_that_the_page_names_are_in_the_source_distribution():
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]

    assert {"/docs", "/CONTRIBUTING.md"} <= set(included)


def test_the_classifiers_name_versions_of_python_that_are_tested():
    (tested,) = re.findall(r"^PYTHONS = \[(.*)\]", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    named = [word.removeprefix("Programming Language :: Python :: ") for word in PROJECT["classifiers"]]
    named = [version for version in named if re.fullmatch(r"3\.\d+", version)]

    assert named[0] == PROJECT["requires-python"].removeprefix(">=")
    assert set(named) <= set(re.findall(r'"(3\.\d+)"', tested))


def test_no_classifier_promises_a_framework_that_does_not_work():
    frameworks = {word for word in PROJECT["classifiers"] if word.startswith("Framework")}

    assert frameworks == {"Framework :: AsyncIO", "Framework :: Jupyter"}
