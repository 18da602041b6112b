from __future__ import annotations

import json

import pytest

from kling_async.cli.prompt_list import explain_problems, read_prompts
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.requests import VideoRequest


def test_prompts_come_before_those_of_the_file_and_options_fill_what_is_open(home):
    (home / "p.csv").write_text("prompt,duration\na dog,10\na bird,\n")
    prompt_list = read_prompts(["a cat"], "p.csv", {"duration": 5, "sound": True})
    assert prompt_list.problems == ()
    assert prompt_list.items() == [
        VideoRequest("a cat", model="kling-v2-6", duration=5, sound=True),
        VideoRequest("a dog", model="kling-v2-6", duration=10, sound=True),
        VideoRequest("a bird", model="kling-v2-6", duration=5, sound=True),
    ]


def test_a_command_without_prompts_says_how_to_give_them():
    with pytest.raises(ConfigurationError, match="give a prompt in quotes, or --from FILE"):
        read_prompts([], None, {})


def test_words_of_one_prompt_are_not_bought_one_by_one():
    with pytest.raises(
        ConfigurationError, match=r"3 prompts of one word each would be 3 videos.*\"a black …\""
    ):
        read_prompts(["a", "black", "cat"], None, {})


@pytest.mark.parametrize("prompts", [["cat"], ["a cat", "a dog"], ["一只猫", "一只狗"]])
def test_short_prompts_are_accepted_if_they_are_meant(prompts):
    assert len(read_prompts(prompts, None, {})) == len(prompts)


def test_an_item_that_cannot_be_used_keeps_its_place(home):
    (home / "p.jsonl").write_text('"a"\nnonsense\n"c"\n')
    prompt_list = read_prompts([], "p.jsonl", {})
    assert prompt_list.items() == [
        VideoRequest("a", model="kling-v2-6"),
        {},
        VideoRequest("c", model="kling-v2-6"),
    ]
    assert prompt_list.problem_at(0) is None
    problem = prompt_list.problem_at(1)
    assert isinstance(problem, InvalidRequestError)
    assert str(problem).startswith("p.jsonl, line 2: not JSON")


@pytest.mark.parametrize("name", ["lost.png", "folder.png", "x" * 5000 + ".png"])
def test_a_picture_that_is_not_there_is_a_problem_of_its_line(home, name):
    (home / "folder.png").mkdir()
    (home / "p.jsonl").write_text(f'"a"\n{json.dumps({"prompt": "b", "image": name})}\n')
    (problem,) = read_prompts([], "p.jsonl", {}).problems
    assert str(problem) == f"p.jsonl, line 2: there is no file {name!r}"


def test_an_empty_picture_is_a_problem_of_its_line(home):
    (home / "empty.png").touch()
    (home / "p.csv").write_text("prompt,image\na,empty.png\n")
    (problem,) = read_prompts([], "p.csv", {}).problems
    assert str(problem) == "p.csv, line 2: the picture 'empty.png' is an empty file"


def test_a_picture_that_exists_or_has_a_url_is_no_problem(home):
    (home / "here.png").write_bytes(b"png")
    rows = [{"prompt": "a", "image": "here.png"}, {"prompt": "b", "image": "https://example.com/b.png"}]
    (home / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_prompts([], "p.jsonl", {}).problems == ()


def test_one_problem_is_one_sentence_with_file_line_value_and_next_step(home):
    (home / "p.jsonl").write_text('"a"\n{"prompt": "b", "duration": 7}\n')
    assert explain_problems(read_prompts([], "p.jsonl", {})) == [
        "p.jsonl, line 2: kling-v2-6: duration must be 5 or 10, not 7. Nothing was sent; mend it, or skip it with --skip-invalid."
    ]


def test_lines_with_the_same_problem_share_a_sentence(home):
    (home / "p.txt").write_text("a\nb\n" * 6)
    (line,) = explain_problems(read_prompts([], "p.txt", {"duration": 7}))
    assert line.startswith("p.txt, lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more: kling-v2-6: duration must")
    (line,) = explain_problems(read_prompts(["a cat", "a dog"], None, {"duration": 7}))
    assert line.startswith("the command line, prompts 1, 2: ")


def test_problems_are_listed_up_to_ten_kinds(home):
    (home / "p.jsonl").write_text('"fine"\n' + "".join(f"[{number}]\n" for number in range(12)))
    headline, *lines = explain_problems(read_prompts([], "p.jsonl", {}))
    assert headline.startswith("12 of 13 prompts cannot be used. Nothing was sent;")
    assert lines[0] == "p.jsonl, line 2: neither an object nor a string: '[0]'"
    assert lines[10:] == ["and 2 more"]


def test_a_slip_of_the_command_line_is_refused_until_it_is_meant(home):
    (home / "p.txt").write_text("a cat\n")
    for prompts, words in ((["p.txt"], "--from p.txt"), (["a cat", "off"], "--sound off")):
        with pytest.raises(ConfigurationError, match=rf"{words}, or add --yes if it is meant\.$"):
            read_prompts(prompts, None, {})
        assert len(read_prompts(prompts, None, {}, is_meant=True)) == len(prompts)
    with pytest.raises(ConfigurationError, match="one word beside other prompts"):
        read_prompts(["cat"], "p.txt", {})
    assert len(read_prompts(["cat"], None, {})) == 1


def test_an_empty_prompt_is_meant_only_for_a_model_that_needs_none():
    with pytest.raises(ConfigurationError, match=r"or add --yes for a model that needs no prompt\.$"):
        read_prompts([""], None, {})
    needs_one, needs_none = (
        read_prompts([""], None, {"model": model}, is_meant=True)
        for model in ("kling-v2-6", "kling-v3-image-to-video")
    )
    assert len(needs_one.problems) == 1
    assert not needs_none.problems


def test_a_field_that_the_model_does_not_take_is_explained_without_python():
    (problem,) = read_prompts(["a cat"], None, {"model": "kling-v2-6", "aspect_ratio": "16:9"}).problems
    assert str(problem).endswith("takes no aspect_ratio (got '16:9'); leave it out")


def test_a_slip_in_a_file_is_a_problem_of_its_line_until_it_is_meant(home):
    (home / "p.jsonl").write_text('"a cat"\n"nan"\n"#dogs"\n')
    prompt_list = read_prompts([], "p.jsonl", {})
    assert list(map(str, prompt_list.problems)) == [
        "p.jsonl, line 2: 'nan' is a word for no value: leave it out, or add --yes if it is meant",
        "p.jsonl, line 3: '#dogs' looks like a comment: leave the line out, or add --yes if it is meant",
    ]
    assert read_prompts([], "p.jsonl", {}, is_meant=True).problems == ()


def test_a_list_says_what_its_file_has_and_it_has_not(home):
    (home / "p.txt").write_text("# mine\na cat\n")
    assert read_prompts([], "p.txt", {}).notes == ("p.txt: 1 comment is left out (# and a space).",)


def test_extra_in_a_csv_is_json(home):
    (home / "p.csv").write_text('prompt,extra\na cat,"{""seed"": 7}"\na dog,{seed\n')
    first, second = read_prompts([], "p.csv", {}).requests
    assert first.extra == {"seed": 7}
    assert str(second) == "p.csv, line 3: kling-v2-6: extra is not JSON: '{seed'"


def test_labels_and_the_encoding_are_those_of_the_file(home):
    (home / "p.csv").write_bytes("prompt;concept\nEin Café;Küche\n".encode("cp1252"))
    (request,) = read_prompts([], "p.csv", {}, keep_labels=True, encoding="cp1252").valid
    assert request == VideoRequest("Ein Café", model="kling-v2-6", labels={"concept": "Küche"})
