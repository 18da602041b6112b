from __future__ import annotations

import io

import pytest

from kling_async.cli.prompt_files import read_file
from kling_async.cli.prompt_rows import Row
from kling_async.errors import ConfigurationError


@pytest.fixture
def rows(home):
    """The rows of a file with these bytes."""

    def rows(name: str, content: bytes | str, **options: object) -> list[Row]:
        data = content if isinstance(content, bytes) else content.encode()
        (home / name).write_bytes(data)
        return read_file(name, **options).rows

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
        ('{"prompt": "a", "prompt": "b"}', "JSON that cannot be read ('prompt' is named twice)"),
        ('{"prompt": "a", "extra": {"n": 1, "n": 2}}', "JSON that cannot be read ('n' is named twice)"),
        ('{"prompt": "a", "durration": 5}', "unknown key 'durration' (did you mean 'duration')"),
        ('{"prompt": "a", "zz": 5}', "unknown key 'zz' (the keys are prompt, model, image"),
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
        Row(2, {"prompt": "a cat, asleep", "duration": "10", "sound": "on", "extra": '{"seed": 7}'}),
        Row(4, {"prompt": "two\nlines"}),
        Row(6, {"prompt": "short"}),
        Row(7, {"duration": "5"}),
    ]


@pytest.mark.parametrize(
    "line, problem",
    [
        (
            "a cat, asleep,5",
            "3 cells under 2 columns, '5' is too many; put quotes around a cell that holds the separator",
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


@pytest.mark.parametrize(
    "header, sentence",
    [
        (
            "prompt,Durations",
            "p.csv, line 1: unknown column 'Durations' (did you mean 'duration'); --labels keeps further columns as",
        ),
        (
            "prompt,zz,durations,yy",
            "p.csv, line 1: unknown column 'durations' (did you mean 'duration'), 'zz', 'yy' (the",
        ),
        ("prompt,Prompt", "p.csv, line 1: a column is named twice (got 'prompt, Prompt')"),
        ("prompt,negative prompt,Negative-Prompt", "p.csv, line 1: a column is named twice"),
        ("prompt,zz", "p.csv, line 1: unknown column 'zz' (the columns are prompt, model,"),
        ("duration,sound", "p.csv, line 1: a column 'prompt' is missing (got 'duration, sound')"),
        ("prompt,prompt", "p.csv, line 1: a column is named twice (got 'prompt, prompt')"),
        ("zz", "p.csv, line 1: unknown column 'zz'"),
    ],
)
def test_a_wrong_header_is_refused(rows, header, sentence):
    with pytest.raises(ConfigurationError) as refused:
        rows("p.csv", f"{header}\na cat,5\n")
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    "header, is_missing", [("prompt,zz", False), ("PROMPT,zz", False), ("text,sound", True)]
)
def test_a_header_without_prompts_says_so_beside_its_other_faults(rows, header, is_missing):
    with pytest.raises(ConfigurationError, match="unknown column") as refused:
        rows("p.csv", f"{header}\na cat,5\n")
    assert ("; a column 'prompt' is missing. The first line" in str(refused.value)) is is_missing


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("p.txt", b"", "p.txt is empty: "),
        ("p.txt", b"\xef\xbb\xbf\n  \n", "p.txt is empty: "),
        ("p.jsonl", b"\n", "p.jsonl is empty: "),
        ("p.csv", b"", "p.csv is empty: "),
        ("p.csv", b"prompt,duration\n", "p.csv is empty: "),
        (
            "p.txt",
            b"a cat\n\xe9t\xe9\n",
            "p.txt, line 2: not UTF-8 (byte 0xe9); save the file as UTF-8, or name its encoding, such as --encoding cp1252.",
        ),
        ("p.csv", b"\xff\xfep\0r", "p.csv, line 1: not UTF-16 (byte 0x72); save the file as UTF-8"),
        ("p.md", b"a cat\n", "p.md: prompts are read from .txt (one a line), .csv, .tsv and .jsonl files;"),
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
    shown = name.replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert str(refused.value) == f"{shown} cannot be read: {reason}; check the name given to --from."


TABLE = [Row(2, {"Prompt": "A moon; rising, slowly", "duration": "5"}), Row(3, {"Prompt": "Ein Café"})]


@pytest.mark.parametrize(
    "content",
    [
        'Prompt,duration\n"A moon; rising, slowly",5\nEin Café,\n',
        'Prompt;duration\r\n"A moon; rising, slowly";5\r\nEin Café;\r\n',
        "Prompt\tduration\rA moon; rising, slowly\t5\rEin Café\t\r",
        "Prompt|duration\nA moon; rising, slowly|5\nEin Café|\n",
        'Prompt;duration;;\n"A moon; rising, slowly";5;;\nEin Café;;;;;;\n',
        ',Prompt,duration,\n0,"A moon; rising, slowly",5,\n1,Ein Café,,\n',
        'Unnamed: 0,Prompt,duration\n0,"A moon; rising, slowly",5\n1,Ein Café,\n',
    ],
    ids=["commas", "semicolons", "tabs", "bars", "empty columns", "an index", "a named index"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_csv_is_read_as_a_spreadsheet_or_a_data_frame_saves_it(rows, content, encoding):
    chosen = "cp1252" if encoding == "cp1252" else None
    assert rows("p.csv", content.encode(encoding), encoding=chosen) == TABLE


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\r"])
def test_a_first_line_can_name_the_separator(rows, first):
    content = f'{first}Prompt;duration\n"A moon; rising, slowly";5\nEin Café;\n'
    lines = rows("p.csv", content.encode("utf-16"))
    assert lines == [Row(row.line + 1, row.item) for row in TABLE]


def test_a_tsv_is_read_as_a_csv(rows):
    assert rows("p.tsv", "Prompt\tduration\nA moon; rising, slowly\t5\nEin Café\t\n") == TABLE


def test_a_text_saved_as_utf_16_is_read(rows):
    assert rows("p.txt", "a cat\r\n一只狗\r\n".encode("utf-16")) == [Row(1, "a cat"), Row(2, "一只狗")]


def test_an_encoding_that_does_not_exist_is_refused(rows):
    with pytest.raises(ConfigurationError, match="--encoding latin-99 is not the name of an encoding"):
        rows("p.txt", "a cat", encoding="latin-99")


def test_what_is_left_out_or_kept_apart_is_said(home):
    (home / "p.csv").write_text(",prompt,concept,motion level,\n0,A moon,sky,3,\n1,A sun,,,\n")
    file = read_file("p.csv", keep_labels=True)
    assert file.rows == [
        Row(2, {"prompt": "A moon", "concept": "sky", "motion level": "3"}),
        Row(3, {"prompt": "A sun"}),
    ]
    assert file.notes == [
        "p.csv: 2 columns without a name are left out.",
        "p.csv: kept as labels: concept, motion level.",
    ]
    (home / "p.csv").write_text("prompt,\nA moon,\n")
    assert read_file("p.csv").notes == ["p.csv: 1 column without a name is left out."]


def test_a_cell_in_a_column_without_a_name_may_be_a_part_of_the_prompt(rows):
    (bad,) = rows("p.csv", "prompt,,\nA moon, rising,\n")
    assert bad.problem == (
        "'rising' stands in a column without a name; name the column, or put quotes around a cell that holds the separator"
    )


def test_a_csv_that_is_broken_in_its_first_line_has_no_columns(rows):
    (bad,) = rows("p.csv", '"prompt\n')
    assert bad.problem is not None
    assert bad.problem.startswith("not CSV (")


def test_keys_of_json_are_read_in_any_case_and_kept_as_labels_on_request(rows):
    line = '{"Prompt": "a", "concept": "sky"}'
    (bad,) = rows("p.jsonl", line)
    assert bad.problem is not None
    assert bad.problem.startswith("unknown key 'concept' (the keys are prompt,")
    assert rows("p.jsonl", line, keep_labels=True) == [Row(1, {"Prompt": "a", "concept": "sky"})]
