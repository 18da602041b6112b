"""The project keeps to the words of its glossary, and the check finds what breaks them."""

from __future__ import annotations

import textwrap

import check_words
import pytest

BANNED = check_words.pattern_of(check_words.banned_words(check_words.GLOSSARY.read_text()))


@pytest.mark.unmeasured
def test_the_project_keeps_to_the_glossary():
    assert check_words.problems() == []


def test_the_check_reads_every_folder_of_the_project():
    read = {path.relative_to(check_words.ROOT).parts[0] for path in check_words.files()}

    assert read >= {
        "README.md",
        "CONTRIBUTING.md",
        *(folder.partition("/")[0] for folder in check_words.FOLDERS),
    }


def test_only_words_in_backticks_of_the_column_not_are_banned():
    table = "| idea | word | not |\n|---|---|---|\n| `one` | `two` | `three four`, five |\n\n| `a` | `b` |\n"

    assert check_words.banned_words(table) == ["three four"]


@pytest.mark.parametrize(
    "text",
    [
        "dice",
        "Dice",
        "roll_dice()",
        "TheDice",
        "settles",
        "Settler",
        "settling",
        "inquiries",
        "a\nword of\n# late",
    ],
)
def test_a_banned_word_is_found_in_all_its_forms(text):
    (line, problem), *others = check_words.find_banned(text, BANNED)

    assert line in {1, 2}
    assert "glossary" in problem
    assert others == []


@pytest.mark.parametrize("text", ["keep-alive", "POOL_KEEP_ALIVE", "keepalive_timeout", "indices", "dicey"])
def test_a_word_that_only_contains_a_banned_one_is_fine(text):
    assert list(check_words.find_banned(text, BANNED)) == []


@pytest.mark.parametrize(
    "source",
    [
        "def measured(): ...",
        "async def _listing(): ...",
        "def broken(): ...",
        "class A:\n    def sent(self): ...",
    ],
)
def test_a_function_that_a_participle_names_is_found(source):
    ((_, problem),) = check_words.find_participles(source)

    assert "participle" in problem


@pytest.mark.parametrize(
    "source",
    [
        "def open(): ...",
        "def measure(): ...",
        "def is_measured(): ...",
        "def find_listing(): ...",
        "def __len__(self): ...",
        "@property\ndef failed(self): ...",
        "@functools.cached_property\ndef failed(self): ...",
        "@pytest.fixture(scope='module')\ndef measured(): ...",
    ],
)
def test_a_verb_a_property_and_a_fixture_are_fine(source):
    assert list(check_words.find_participles(textwrap.dedent(source))) == []
