from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kling_async._policy.file_names import file_name, slug, tag

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
SAFE = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]\.mp4", re.ASCII)
IDS = (
    st.uuids().map(str)
    | st.text()
    | st.sampled_from(["", ".", "..", "../../etc/passwd", "a/b", "a\\b", "CON", "x" * 5000])
)


@given(
    request_id=IDS,
    prompt=st.text() | st.sampled_from(sorted(RESERVED)),
    index=st.none() | st.integers(0, 10**6),
)
def test_a_name_is_safe_on_every_file_system(request_id, prompt, index):
    name = file_name(request_id, prompt=prompt, index=index)
    assert SAFE.fullmatch(name)
    assert len(name.encode()) <= 70
    assert name.partition(".")[0] not in RESERVED
    assert "--" not in name


@given(first=IDS, second=IDS)
def test_two_jobs_with_one_prompt_have_names_that_differ_in_more_than_case(first, second):
    assume(first.casefold() != second.casefold())
    names = {file_name(request_id, prompt="a dog").casefold() for request_id in (first, second)}
    assert len(names) == 2


def test_ids_that_differ_only_in_case_have_names_that_differ_in_more():
    assert tag("job-a").casefold() != tag("JOB-A").casefold()


@pytest.mark.parametrize(
    "request_id", ["550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000"]
)
def test_the_tag_of_a_random_uuid_is_its_beginning(request_id):
    assert tag(request_id) == "550e8400"


def test_the_tag_of_a_uuid_that_begins_with_the_time_is_a_digest():
    stamp = 0x0192_F3A1_0000
    ids = [str(uuid.UUID(int=(stamp + n) << 80 | 7 << 76 | 2 << 62 | n)) for n in range(1000)]
    assert len({request_id[:8] for request_id in ids}) == 1
    assert len({tag(request_id) for request_id in ids}) == 1000


@given(request_id=st.text())
def test_the_tag_of_any_other_id_is_a_digest_that_shows_none_of_it(request_id):
    assert re.fullmatch(r"[0-9a-f]{8}", tag(request_id))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A black dog, running!", "a-black-dog-running"),
        ("Café del Mar №5", "cafe-del-mar-no5"),
        ("../../etc/passwd", "etc-passwd"),
        ("a" * 47 + " b c", "a" * 47),
        ("x" * 5000, "x" * 48),
        ("一只黑狗", ""),
        ("\N{RIGHT-TO-LEFT OVERRIDE}\x00\ud800 </script>", "script"),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_slug_is_the_ascii_letters_and_digits_of_the_text(text, expected):
    assert slug(text) == expected


def test_the_name_for_a_prompt_without_ascii_letters_is_number_and_tag():
    assert (
        file_name("550e8400-e29b-41d4-a716-446655440000", prompt="一只黑狗", index=7) == "00007-550e8400.mp4"
    )


def test_the_name_of_a_video_outside_a_batch_begins_with_kling():
    assert file_name("550e8400-e29b-41d4-a716-446655440000", prompt="A dog") == "kling-a-dog-550e8400.mp4"


def test_names_sort_in_input_order():
    names = [file_name(str(uuid.uuid4()), prompt="x", index=index) for index in (*range(12), 999, 99_999)]
    assert names == sorted(names)
