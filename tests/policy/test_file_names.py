from __future__ import annotations

import re
import unicodedata
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kling_async._policy.file_names import (
    file_name,
    longest_name,
    longest_name_of,
    names_beside,
    partial_name,
    slug,
    tag,
    unique_name,
    whole_tag,
)
from kling_async._policy.object_stores import job_mark
from kling_async.jobs import canonical_id

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
SAFE = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]\.mp4", re.ASCII)
MOST_BYTES_OF_ENCRYPTED_FOLDERS = 143
IDS = (
    st.uuids().map(str)
    | st.text()
    | st.sampled_from(["", ".", "..", "../../etc/passwd", "a/b", "a\\b", "CON", "x" * 5000])
)
PROMPTS = st.text() | st.sampled_from(sorted(RESERVED))
INDEXES = st.none() | st.integers(0, 10**9)


@given(request_id=IDS, prompt=PROMPTS, index=INDEXES)
def test_an_ascii_name_is_safe_on_every_file_system(request_id, prompt, index):
    name = file_name(request_id, prompt=prompt, index=index, is_ascii=True)
    assert SAFE.fullmatch(name)
    assert len(name) + len(".99.part.json") <= len(longest_name(is_ascii=True))
    assert name.partition(".")[0] not in RESERVED
    assert "--" not in name


@given(request_id=IDS, prompt=PROMPTS, index=INDEXES)
def test_a_name_is_safe_where_file_systems_take_unicode(request_id, prompt, index):
    name = file_name(request_id, prompt=prompt, index=index)
    longest = longest_name(is_ascii=False)
    assert (
        len(name.encode()) + len(".99.part.json") <= len(longest.encode()) <= MOST_BYTES_OF_ENCRYPTED_FOLDERS
    )
    assert len(name.encode("utf-16-le")) + 2 * len(".99.part.json") <= len(longest.encode("utf-16-le"))
    assert re.match("[a-z0-9]", name, re.ASCII)
    assert {unicodedata.category(char) for char in name} <= {
        *("Ll", "Lu", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Mn", "Mc", "Pd", "Po")
    }
    assert set(name) & set('/\\:*?"<>|') == set()
    assert name == unicodedata.normalize("NFC", name)
    assert name.partition(".")[0] not in RESERVED


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


@pytest.mark.parametrize("version", [1, 4, 7])
def test_two_spellings_of_one_uuid_have_one_name(version):
    request_id = str(uuid.UUID(int=0xABCDEF << 90, version=4)).replace("-4", f"-{version}")
    assert request_id != request_id.upper()
    assert file_name(request_id) == file_name(request_id.upper())
    assert job_mark(request_id) == job_mark(request_id.upper())


def test_the_tag_of_a_uuid_that_begins_with_the_time_is_a_digest():
    stamp = 0x0192_F3A1_0000
    ids = [str(uuid.UUID(int=(stamp + n) << 80 | 7 << 76 | 2 << 62 | n)) for n in range(1000)]
    assert len({request_id[:8] for request_id in ids}) == 1
    assert len({tag(request_id) for request_id in ids}) == 1000


@given(request_id=st.text())
def test_the_tag_of_any_other_id_is_a_digest_that_shows_none_of_it(request_id):
    assert re.fullmatch(r"[0-9a-f]{8}", tag(request_id))


@pytest.mark.parametrize(
    "text, expected, ascii_form",
    [
        ("A black dog, running!", "a-black-dog-running", "a-black-dog-running"),
        ("Café del Mar №5", "café-del-mar-5", "cafe-del-mar-no5"),
        ("Cafe\u0301", "café", "cafe"),
        ("../../etc/passwd", "etc-passwd", "etc-passwd"),
        ("a" * 47 + " b c", "a" * 47, "a" * 47),
        ("x" * 5000, "x" * 48, "x" * 48),
        ("é" * 5000, "é" * 48, "e" * 48),
        ("一只黑狗，在雨中奔跑。", "一只黑狗-在雨中奔跑", ""),  # noqa: RUF001
        ("黑" * 50, "黑" * 32, ""),
        ("Бегущая собака", "бегущая-собака", ""),
        ("كلب أسود", "كلب-أسود", ""),
        ("एक काला कुत्ता", "एक-काला-कुत्ता", ""),
        ("สุนัขสีดำ", "สุนัขสีดำ", ""),
        ("검은 개", "검은-개", ""),
        ("می\u200cخواهم", "میخواهم", ""),  # noqa: RUF001
        ("\u0301lone", "lone", "lone"),
        ("❤\ufe0f 5\ufe0f\u20e3 \u3164", "5", "5"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}\x00\ud800 </script>", "script", "script"),
        ("CON", "con", "con"),
        ("...", "", ""),
        ("", "", ""),
    ],
)
def test_a_slug_is_the_words_of_the_text(text, expected, ascii_form):
    assert slug(text) == unicodedata.normalize("NFC", expected)
    assert slug(text, is_ascii=True) == ascii_form


def test_a_slug_is_cut_between_letters_and_not_between_a_letter_and_its_marks():
    assert slug("x" * 47 + "क्षि") == "x" * 47
    assert slug("x" + "\u0323" * 100) == ""
    assert slug("\N{MATHEMATICAL SCRIPT SMALL X}" * 30) == "\N{MATHEMATICAL SCRIPT SMALL X}" * 24


def test_the_name_for_a_prompt_without_words_is_number_and_tag():
    job = "550e8400-e29b-41d4-a716-446655440000"
    assert file_name(job, prompt="…", index=7) == "00007-550e8400.mp4"
    assert file_name(job, prompt="一只黑狗", index=7) == "00007-一只黑狗-550e8400.mp4"
    assert file_name(job, prompt="一只黑狗", index=7, is_ascii=True) == "00007-550e8400.mp4"


def test_the_name_of_a_video_outside_a_batch_begins_with_kling():
    assert file_name("550e8400-e29b-41d4-a716-446655440000", prompt="A dog") == "kling-a-dog-550e8400.mp4"


def test_names_sort_in_input_order():
    names = [file_name(str(uuid.uuid4()), prompt="x", index=index) for index in (*range(12), 999, 99_999)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    "name, beside",
    [
        ("eagle.mp4", "eagle-550e8400.mp4"),
        ("eagle", "eagle-550e8400"),
        (".mp4", ".mp4-550e8400"),
        ("a.b.mp4", "a.b-550e8400.mp4"),
        ("é" * 125 + ".mp4", "é" * 121 + "-550e8400.mp4"),
    ],
)
def test_the_name_beside_another_file_shows_the_job(name, beside):
    request_id = "550e8400-e29b-41d4-a716-446655440000"
    short, own = names_beside(name, request_id)
    assert short == beside
    assert whole_tag(request_id) in own
    assert max(len(one.encode()) for one in (short, own)) <= 255


@given(first=IDS, second=IDS, index=INDEXES)
def test_no_two_jobs_have_one_unique_name(first, second, index):
    names = {unique_name(request_id, index=index) for request_id in (first, second)}
    assert len(names) == len({canonical_id(request_id) for request_id in (first, second)})
    assert all(SAFE.fullmatch(name) and len(name) <= len(longest_name(is_ascii=True)) for name in names)


def test_a_partial_file_is_named_after_its_destination():
    assert partial_name("a.mp4") == "a.mp4.part"
    assert partial_name("a.mp4", 2) == "a.mp4.2.part"


@pytest.mark.parametrize("name", ["x" * 255, "x" * 243, "é" * 127, "黑" * 85])
def test_the_partial_file_of_a_long_name_has_a_name_that_file_systems_take(name):
    assert len(f"{partial_name(name, 99)}.json".encode()) <= 255
    assert partial_name(name) != partial_name(name[:-1])
    assert partial_name(name).startswith(name[:70])


@pytest.mark.parametrize("size", [1, 242, 243, 250, 255, 256, 300])
def test_the_longest_name_of_a_file_is_no_shorter_than_any_name_that_saving_writes(size):
    name = "x" * size
    written = [name, partial_name(name), f"{partial_name(name)}.json", *names_beside(name, "job")]
    assert all(len(longest_name_of(name)) >= len(one) or len(one) <= 255 for one in written)
    assert (len(longest_name_of(name)) > 255) == (size > 255)


def test_a_name_that_no_file_system_takes_is_not_shortened():
    assert len(partial_name("x" * 256)) == 261
