from __future__ import annotations

import io

import pytest

from kling_async.cli.prompt_files import Row, read_file
from kling_async.errors import ConfigurationError


@pytest.fixture
def rows(home):
    """The rows of a file with these bytes."""

    def rows(name: str, content: bytes | str) -> list[Row]:
        data = content if isinstance(content, bytes) else content.encode()
        (home / name).write_bytes(data)
        return read_file(name).rows

    return rows


@pytest.mark.parametrize(
    "content",
    [
        "a cat\n\n   \n  一只狗 \n",
        "a cat\r\n\r\n\r\n一只狗",
        "a cat\r\r\r一只狗\r",
        "\ufeffa cat\n\n\n一只狗\n",
    ],
)
def test_a_text_has_a_prompt_a_line_and_blank_lines_count_but_are_left_out(rows, content):
    assert rows("p.txt", content) == [Row(1, "a cat"), Row(4, "一只狗")]


def test_a_line_with_a_hash_and_a_space_is_a_comment_and_is_counted(home):
    (home / "p.txt").write_text("# my prompts\na cat\n#\n  ## more\n#1 of 3\n#cats\n")
    file = read_file("p.txt")
    assert file.rows == [Row(2, "a cat"), Row(5, "#1 of 3"), Row(6, "#cats")]
    assert file.notes == ["p.txt: 3 comments are left out (# and a space)."]
    (home / "p.txt").write_text("a cat\n# a dog\n")
    assert read_file("p.txt").notes == ["p.txt: 1 comment is left out (# and a space)."]


def test_only_line_ends_end_a_prompt(rows):
    assert rows("p.TXT", "a\u2028b\x0cc\x85d\n") == [Row(1, "a\u2028b\x0cc\x85d")]


def test_stdin_is_read_as_a_text(home, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("一只猫\n".encode()), encoding="ascii"))
    assert read_file("-").rows == [Row(1, "一只猫")]


def test_a_stdin_without_a_prompt_is_called_so(home, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(ConfigurationError, match=r"^stdin is empty: "):
        read_file("-")


def test_a_folder_of_prompts_is_no_file_of_them(home):
    with pytest.raises(ConfigurationError, match=r"^\. is a folder; name a file in it for --from\.$"):
        read_file(".")


@pytest.mark.parametrize("name", ["p.jsonl", "p.ndjson"])
def test_json_lines_are_objects_or_strings(rows, name):
    assert rows(name, '{"prompt": "a", "duration": 10}\n\n"一只猫"\n') == [
        Row(1, {"prompt": "a", "duration": 10}),
        Row(3, "一只猫"),
    ]


@pytest.mark.parametrize(
    "line, problem",
    [
        (
            '{"prompt": "a" "b"}',
            'not JSON (Expecting \',\' delimiter at character 16): \'{"prompt": "a" "b"}\'',
        ),
        ("a cat", "not JSON (Expecting value at character 1): 'a cat'"),
        ("[1]", "neither an object nor a string: '[1]'"),
        ("null", "neither an object nor a string: 'null'"),
        ("1" * 5000, "JSON that cannot be read (Exceeds the limit"),
        ("[" * 100_000, "JSON that cannot be read (maximum recursion"),
        ('{"prompt": "a", "durration": 5}', "there is no key 'durration' (did you mean 'duration')"),
        ('{"prompt": "a", "zz": 5}', "there is no key 'zz' (the keys are prompt, model, image"),
    ],
)
def test_a_broken_json_line_is_named_by_its_number_and_value(rows, line, problem):
    good, bad, last = rows("p.jsonl", f'"one"\n{line}\n"three"\n')
    assert (good.problem, last.problem) == (None, None)
    assert bad.line == 2
    assert bad.problem is not None
    assert bad.problem.startswith(problem)


def test_csv_rows_take_their_names_from_the_header(rows):
    content = (
        "\ufeffprompt, duration,sound,extra\r\n"
        '"a cat, asleep",10,on,"{""seed"": 7}"\r\n'
        "\r\n"
        '"two\nlines",,,\r\n'
        "short\r\n"
        ",5,,\r\n"
    )
    assert rows("p.csv", content) == [
        Row(2, {"prompt": "a cat, asleep", "duration": "10", "sound": "on", "extra": {"seed": 7}}),
        Row(4, {"prompt": "two\nlines"}),
        Row(6, {"prompt": "short"}),
        Row(7, {"duration": "5"}),
    ]


@pytest.mark.parametrize(
    "line, problem",
    [
        (
            "a cat, asleep,5",
            "3 cells under 2 columns, '5' is too many; a cell that holds a comma needs quotes",
        ),
        ('"a" cat,5', "not CSV ("),
        ('"a cat,5', "not CSV ("),
    ],
)
def test_a_broken_csv_row_is_named_by_its_number(rows, line, problem):
    _, bad = rows("p.csv", f"prompt,duration\na dog,5\n{line}\n")[:2]
    assert bad.line == 3
    assert bad.problem is not None
    assert bad.problem.startswith(problem)


def test_extra_in_a_csv_is_json(rows):
    (bad,) = rows("p.csv", "prompt,extra\na,{seed\n")
    assert bad.problem is not None
    assert bad.problem.startswith("extra is not JSON (")
    assert "'{seed'" in bad.problem


@pytest.mark.parametrize(
    "header, sentence",
    [
        ("prompt,Durations", "p.csv, line 1: there is no column 'Durations' (did you mean 'duration')."),
        ("prompt,zz", "p.csv, line 1: there is no column 'zz' (the columns are prompt, model,"),
        ("duration,sound", "p.csv, line 1: a column 'prompt' is missing (got 'duration, sound')"),
        ("prompt,prompt", "p.csv, line 1: a column is named twice (got 'prompt, prompt')"),
        (
            "\n\nprompt;duration",
            "p.csv, line 3: the columns are separated by semicolons; save the file with commas.",
        ),
        ("prompt\tduration", "p.csv, line 1: the columns are separated by tabs; save the file with commas."),
        ("zz", "p.csv, line 1: there is no column 'zz'"),
    ],
)
def test_a_wrong_header_is_refused(rows, header, sentence):
    with pytest.raises(ConfigurationError) as refused:
        rows("p.csv", f"{header}\na cat,5\n")
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("p.txt", b"", "p.txt is empty: "),
        ("p.txt", b"\xef\xbb\xbf\n  \n", "p.txt is empty: "),
        ("p.jsonl", b"\n", "p.jsonl is empty: "),
        ("p.csv", b"", "p.csv is empty: "),
        ("p.csv", b"prompt,duration\n", "p.csv is empty: "),
        ("p.txt", b"a cat\n\xe9t\xe9\n", "p.txt, line 2: not UTF-8 (byte 0xe9); save the file as UTF-8."),
        (
            "p.csv",
            "prompt\n".encode("utf-16"),
            "p.csv, line 1: not UTF-8 (it looks like UTF-16); save the file",
        ),
        ("p.md", b"a cat\n", "p.md: prompts are read from .txt (one a line), .csv and .jsonl files;"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused(rows, name, content, sentence):
    with pytest.raises(ConfigurationError) as refused:
        rows(name, content)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("missing.txt", "No such file or directory"),
        ("folder.txt", "Is a directory"),
        ("nul\0.txt", "embedded null byte"),
        ("file.md/p.txt", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(home, name, reason):
    (home / "folder.txt").mkdir()
    with pytest.raises(ConfigurationError) as refused:
        read_file(name)
    assert str(refused.value) == f"{name} cannot be read: {reason}; check the name given to --from."
