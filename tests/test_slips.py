from __future__ import annotations

import pytest

from kling_async import slips
from kling_async.cli import app
from kling_async.errors import InvalidRequestError
from kling_async.items import check_meant, find_prompt_slip, find_request_slip, read_one
from kling_async.requests import FIELDS, VideoRequest
from kling_async.slips import could_be_path, find_shell_slip, find_slip


@pytest.mark.parametrize(
    "prompt, reason, call, command",
    [
        ("prompts.txt", "'prompts.txt' is the name of a file", "read().splitlines()", "--from prompts.txt"),
        (" a.CSV ", "'a.CSV' is the name of a file", "read()", "--from a.CSV"),
        ("my-prompts/all.jsonl", "is the name of a file", "read()", "--from my-prompts/all.jsonl"),
        ("cat.png", "is the name of a file", "image='cat.png'", "--image cat.png"),
        ("videos/run.db", "is the name of a file", "journal=", "resume videos/run.db"),
        ("videos/", "is the name of a file", "describe the video", "--from"),
        ("~/prompts", "is the name of a file", "describe the video", "--from"),
        ("../prompts", "is the name of a file", "describe the video", "--from"),
        ("/imagine", "is the name of a file", "describe the video", "--from"),
        ("notes.xlsx", "is the name of a file", "describe the video", "--from"),
        ("# a comment", "'# a comment' looks like a comment", "leave the item out", "leave the line out"),
        ("#cats", "looks like a comment", "leave", "leave"),
        ("#REF!", "looks like a comment", "leave", "leave"),
        ("Duration", "'Duration' is the name of a field", "rows of a table", ".csv"),
        ("prompt, duration", "is the name of a field", "rows of a table", ".csv"),
        ("prompt;sound", "is the name of a field", "rows of a table", ".csv"),
        ("NaN", "'NaN' is a word for no value", "leave the item out", "leave it out"),
        ("None", "is a word for no value", "leave the item out", "leave it out"),
        ('{"prompt": "a cat"}', "is JSON", "json.loads", ".jsonl"),
        ("https://example.com/cat.png", "is a URL", "image=", "--image URL"),
        ("", "the prompt is empty", "describe", "describe"),
    ],
)
def test_data_instead_of_the_content_of_a_video_is_a_slip_at_every_door(prompt, reason, call, command):
    slip = find_slip(prompt, is_path=False)
    assert slip is not None
    assert reason in slip.reason
    assert call in slip.call
    assert command in slip.command


@pytest.mark.parametrize("field", FIELDS)
def test_the_name_of_a_field_is_a_slip(field):
    assert find_slip(field, is_path=False) is not None


@pytest.mark.parametrize(
    "prompt",
    [
        "A cat",
        "cat",
        "一只白鹤掠过湖面",
        "x",
        "7",
        "off",
        "A cat looks at prompts.txt",
        "Number # one",
        "A model, in duration",
        "{a set of cats}",
        "see https://example.com",
        "A cat / a dog",
        "/ and then a cat",
        "1/2",
        "A cat naps. Then it wakes.",
        "e.g",
    ],
)
def test_the_content_of_a_video_is_no_slip(prompt):
    assert find_slip(prompt, is_path=False) is None


def test_deep_brackets_are_no_json():
    assert find_slip('{"a":' * 100_000, is_path=False) is None


def test_the_name_of_something_that_exists_is_a_slip_whatever_it_looks_like():
    slip = find_slip("sunset", is_path=True)
    assert slip is not None
    assert slip.reason == "'sunset' is the name of a file"


@pytest.mark.parametrize(
    "name, option",
    [
        ("my prompts.txt", "--from 'my prompts.txt'"),
        ("my cat.png", "--image 'my cat.png'"),
        ("run (2).db", "kling-async resume 'run (2).db'"),
    ],
)
def test_a_name_is_shown_as_a_shell_takes_it(name, option):
    slip = find_slip(name, is_path=True)
    assert slip is not None
    assert slip.command.endswith(option)


@pytest.mark.parametrize(
    "prompt, is_path", [("sunset", True), ("my prompts.txt", True), ("A sunset", False), ("", False)]
)
def test_only_what_looks_like_a_name_is_looked_for(prompt, is_path):
    assert could_be_path(prompt) is is_path


@pytest.mark.parametrize(
    "prompts, reason, command",
    [
        (["A moon", "off"], "'off' looks like the value of an option", "--sound off"),
        (["A moon", "TRUE"], "looks like the value", "--sound TRUE"),
        (["A moon", "10"], "looks like the value", "--duration 10"),
        (["A moon", "5s"], "'5s' looks like the value", "--duration 5"),
        (["A moon", "0.5"], "looks like the value", "--duration 0.5"),
        (["A moon", "pro"], "looks like the value", "--mode pro"),
        (["A moon", "16:9"], "looks like the value", "--aspect-ratio 16:9"),
        (["A moon", "1080p"], "looks like the value", "--resolution 1080p"),
        (["A moon", "4k"], "looks like the value", "--resolution 4k"),
        (["A moon", "kling-v2-6"], "looks like the value", "--model kling-v2-6"),
        (["A moon", "—duration"], "'—duration' looks like an option", "--duration with two plain hyphens"),
        (["A moon", "--sound"], "looks like an option", "--sound"),
        (["A moon", "rising"], "'rising' is a prompt of one word beside other prompts", "one pair of quotes"),
        (["A moon", "Восход"], "'Восход' is a prompt of one word", "one pair of quotes"),
        (["a", "black", "cat"], "3 prompts of one word each would be 3 videos", '("a black …")'),
        (["off"], "looks like the value", "--sound off"),
        (["status"], "'status' is the name of a command", "kling-async status --help"),
        (["help"], "'help' would be a video", "generate --help"),
        (
            ["A moon --sound off"],
            "has the option --sound within its quotes",
            "end the quotes before the option",
        ),
        (["A sun", "A moon --aspect-ratio 16:9"], "has the option --aspect-ratio", "end the quotes"),
        (["A moon\n--no-sound"], "has the option --no-sound", "end the quotes"),
    ],
)
def test_a_word_of_a_command_line_is_a_slip_beside_others(prompts, reason, command):
    slip = find_shell_slip(prompts, has_file=False)
    assert slip is not None
    assert reason in slip.reason
    assert command in slip.command


@pytest.mark.parametrize(
    "prompts",
    [
        ["cat"],
        ["A cat", "A dog"],
        ["A cat -- asleep", "A dog --fast", "A b--sound"],
        ["一只猫", "一只狗"],
        ["A cat", "一只狗"],
        [],
    ],
)
def test_whole_prompts_of_a_command_line_are_no_slips(prompts):
    assert find_shell_slip(prompts, has_file=False) is None


def test_one_word_is_a_slip_beside_a_file_of_prompts():
    slip = find_shell_slip(["videos"], has_file=True)
    assert slip is not None
    assert slip.reason == "'videos' is a prompt of one word beside other prompts"
    assert find_shell_slip(["A cat"], has_file=True) is None
    assert find_shell_slip(["一只猫"], has_file=True) is None


def test_a_file_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_prompt_slip("sunset") is None
    (tmp_path / "sunset").touch()
    assert find_prompt_slip("sunset") is not None
    assert find_prompt_slip("nul\0") is None


def test_a_python_call_refuses_a_slip_and_names_its_switch():
    with pytest.raises(InvalidRequestError) as caught:
        read_one("# a comment", {"duration": 5})
    assert str(caught.value) == (
        "'# a comment' looks like a comment: leave the item out, or say allow_suspicious=True if it is meant."
    )
    assert read_one("# a comment", {"allow_suspicious": True}).prompt == "# a comment"
    with pytest.raises(InvalidRequestError):
        check_meant(VideoRequest("nan"))


def test_an_empty_prompt_is_a_slip_unless_extra_has_what_the_model_takes():
    model = "a-model-of-tomorrow"
    assert find_request_slip(VideoRequest("", model=model)) is not None
    assert find_request_slip(VideoRequest("", model=model, extra={"multi_prompt": ["a", "b"]})) is None


@pytest.mark.parametrize(
    "prompt", ["\u200b", "\u2060\ufeff", "\0\x1b", "\u3164", "\u2800 ", "\ufe0f\u0301", "\u202e"]
)
@pytest.mark.parametrize("model", [None, "kling-v2-6", "a-model-of-tomorrow"])
def test_a_prompt_without_a_visible_character_is_refused_whatever_is_meant(prompt, model):
    with pytest.raises(InvalidRequestError, match="prompt has no visible character"):
        read_one(prompt, {"model": model, "allow_suspicious": True})


@pytest.mark.parametrize("prompt", ["\u200bx", "👩\u200d🚀", "é", "\U0001fae9"])
def test_one_visible_character_is_enough(prompt):
    assert read_one(prompt, {}).prompt == prompt


def test_the_names_of_all_commands_are_known():
    assert {*app._COMMANDS, "completion"} <= slips._COMMANDS
