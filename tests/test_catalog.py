from __future__ import annotations

from pathlib import Path, PurePosixPath

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidRequestError, VideoRequest, catalog, estimate
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._wire.payloads import payload_of
from kling_async.lines import quote_value

MODEL = "kling-v2-6"
HUGE = 10**5000
WORST = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers()),
    st.just(HUGE),
)
FIELDS = (
    "prompt",
    "sound",
    "image",
    "image_tail",
    "duration",
    "mode",
    "cfg_scale",
    "negative_prompt",
    "resolution",
)


def broken_rules(**values):
    return catalog.broken_rules(MODEL, {"prompt": "a dog", **values})


@pytest.mark.parametrize(
    "field, value",
    [
        ("prompt", "x"),
        ("prompt", "x" * 2500),
        ("prompt", "\N{FAMILY}" * 2500),
        (
            "prompt",
            "a \x00 b \N{RIGHT-TO-LEFT OVERRIDE} </script> \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
        ),
        ("sound", True),
        ("sound", False),
        ("duration", 5),
        ("duration", 10),
        ("mode", "pro"),
        ("cfg_scale", 0),
        ("cfg_scale", 0.5),
        ("cfg_scale", 1.0),
        ("image", "https://host/a.jpg"),
        ("image", "http://host:8080/a/b.JPEG?token=x.gif"),
        ("image", "https://storage.googleapis.com/bucket/a%20b.png"),
        ("image", "data:image/png;base64,iVBORw0KGgo="),
        ("image", "DATA:image/JPEG;BASE64,/9j/\n4AAQ"),
        ("image", "photo.png"),
        ("image", "C:\\photos\\a.jpg"),
        ("image", Path("caf\udce9.jpeg")),
        ("image", PurePosixPath("/a/b.PNG")),
    ],
)
def test_documented_values_are_accepted(field, value):
    assert broken_rules(**{field: value}) == []


@pytest.mark.parametrize(
    "field, value, rule",
    [
        ("prompt", None, "prompt is required"),
        ("prompt", "", "prompt must not be empty (got '')"),
        ("prompt", " \n", "prompt must not be empty (got ' \\n')"),
        ("prompt", b"x", "prompt must be text, not b'x'"),
        ("prompt", "x" * 2501, "prompt must be at most 2,500 characters, not 2,501"),
        ("prompt", "\N{OK HAND SIGN}" * 2501, "prompt must be at most 2,500 characters, not 2,501"),
        ("prompt", "ab\ud800", "prompt is not valid Unicode: a lone surrogate at character 2"),
        ("sound", "loud", "sound must be True or False, not 'loud'"),
        ("sound", 1, "sound must be True or False, not 1"),
        ("duration", 7, "duration must be 5 or 10, not 7"),
        ("duration", True, "duration must be 5 or 10, not True"),
        ("duration", 5.0, "duration must be 5 or 10, not 5.0"),
        pytest.param("duration", HUGE, "duration must be 5 or 10, not <int that cannot be shown>", id="huge"),
        ("mode", "PRO", "mode must be 'pro', not 'PRO'"),
        ("cfg_scale", 1.01, "cfg_scale must be from 0 to 1, not 1.01"),
        ("cfg_scale", -1, "cfg_scale must be from 0 to 1, not -1"),
        ("cfg_scale", 10**400, "cfg_scale must be from 0 to 1, not 1000"),
        ("cfg_scale", float("nan"), "cfg_scale must be from 0 to 1, not nan"),
        ("cfg_scale", float("inf"), "cfg_scale must be from 0 to 1, not inf"),
        ("cfg_scale", True, "cfg_scale must be a number from 0 to 1, not True"),
        ("cfg_scale", "half", "cfg_scale must be a number from 0 to 1, not 'half'"),
        ("image", "", "image must be a URL, a data URI or a path of a picture (.jpg, .jpeg, .png), not ''"),
        ("image", 7, "image must be a URL, a data URI or a path"),
        ("image", "photo.gif", "image must be a file ending in .jpg, .jpeg, .png, not 'photo.gif'"),
        ("image", "data:image/gif;base64,R0lG", "image must be a base64 data URI of a JPEG or PNG"),
        ("image", "data:image/png;base64,", "image must be a base64 data URI of a JPEG or PNG"),
        ("image", "data:image/png,plain", "image must be a base64 data URI of a JPEG or PNG"),
        ("image", "https://host/a", "image must be the URL of a file ending in .jpg, .jpeg, .png"),
        ("image", "https://host/a?file=b.png", "image must be the URL of a file ending in"),
        ("image", "file:///etc/a.png", "image must be an http or https URL with a host"),
        ("image", "https:///a.png", "image must be an http or https URL with a host"),
        ("image", "https://host/a b.png", "image must be an http or https URL with a host"),
        ("image", "https://host/\x00.png", "image must be an http or https URL with a host"),
        ("image", "https://host\\a/b.png", "image must be an http or https URL with a host"),
        ("image", "https://host/\ud800.png", "image must be an http or https URL with a host"),
        ("image", "https://[::1/a.png", "image must be a URL, not"),
        ("image", "https://host:99999/a.png", "image must be a URL, not"),
        ("image_tail", "https://host/a.png", "kling-v2-6 takes no image_tail (got 'https://host/a.png')"),
        ("aspect_ratio", "16:9", "kling-v2-6 takes no aspect_ratio (got '16:9'); leave it out"),
    ],
)
def test_each_broken_rule_is_named_with_its_value(field, value, rule):
    (sentence,) = broken_rules(**{field: value})
    assert rule in sentence


@pytest.mark.parametrize(
    "fields, advice",
    [
        ({"duration": 7}, None),
        ({"resolution": "4k"}, "If the service takes it all the same, give extra={'resolution': ...}."),
        (
            {"duration": 7, "resolution": "4k", "aspect_ratio": "16:9"},
            "If the service takes it all the same, give extra={'aspect_ratio': ..., 'resolution': ...}.",
        ),
    ],
)
def test_only_python_is_told_of_extra_for_fields_that_the_model_does_not_take(fields, advice):
    with pytest.raises(InvalidRequestError) as refused:
        VideoRequest("x", model="kling-v2-6", **fields)
    assert refused.value.advice == advice
    assert "extra" not in refused.value.message
    with pytest.raises(InvalidRequestError) as refused:
        estimate([{"prompt": "x", **fields}], model="kling-v2-6")
    assert refused.value.advice == advice


def test_every_broken_rule_is_listed_not_only_the_first():
    found = broken_rules(
        prompt="", duration=7, sound="loud", mode="std", cfg_scale=2, image="a.gif", resolution="4k"
    )
    assert [sentence.split()[0] for sentence in found] == [
        "prompt", "duration", "sound", "mode", "cfg_scale", "image", "kling-v2-6",
    ]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@given(value=WORST)
def test_any_value_can_be_checked(field, value):
    for model in (MODEL, "a-model-of-tomorrow"):
        for sentence in catalog.broken_rules(model, {field: value}):
            assert isinstance(sentence, str)
            assert len(sentence) < 300


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ""},
        {"prompt": "x" * 9000, "duration": 7, "mode": "whatever", "cfg_scale": 9, "resolution": "8k"},
        {"prompt": "x", "image": Path("a.webp"), "sound": True, "duration": 60.5},
        {"prompt": "x", "image": None, "sound": None, "duration": None},
    ],
)
def test_an_unknown_model_is_checked_for_the_kind_of_each_value_only(values):
    assert catalog.broken_rules("a-model-of-tomorrow", values) == []


@pytest.mark.parametrize(
    "field, value, rule",
    [
        ("prompt", None, "prompt must be text, not None"),
        ("prompt", "\udfff", "prompt is not valid Unicode"),
        ("cfg_scale", float("nan"), "cfg_scale must hold plain JSON values"),
        pytest.param("duration", HUGE, "duration must hold plain JSON values", id="huge"),
        ("mode", b"pro", "mode must be text, not b'pro'"),
        ("mode", "\udfff", "mode is not valid Unicode"),
        ("mode", True, "mode must be text, not True"),
        ("aspect_ratio", 16 / 9, "aspect_ratio must be text, not 1.77"),
        ("resolution", 1080, "resolution must be text, not 1080"),
        ("negative_prompt", ["rain"], "negative_prompt must be text, not ['rain']"),
    ],
)
def test_values_of_another_kind_are_refused_for_every_model(field, value, rule):
    (sentence,) = catalog.broken_rules("a-model-of-tomorrow", {"prompt": "x", field: value})
    assert rule in sentence


def test_ids_of_models_are_case_sensitive():
    assert catalog.broken_rules("Kling-V2-6", {"prompt": "x", "duration": 7}) == []


def test_a_long_value_is_cut_where_it_is_quoted():
    assert quote_value("x" * 58) == repr("x" * 58)
    assert quote_value("x" * 59) == "'" + "x" * 49 + "... (61 characters)"


def test_a_value_whose_repr_fails_is_named_by_its_type():
    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

    assert quote_value(Hostile()) == "<Hostile that cannot be shown>"


def test_a_field_has_its_own_name_unless_the_catalog_has_another():
    assert catalog.wire_name(MODEL, "image") == "image"
    assert catalog.wire_name(MODEL, "resolution") == "resolution"
    assert catalog.wire_name("a-model-of-tomorrow", "image") == "image"
    assert catalog.wire_name("kling-3.0-turbo-i2v", "image") == "first_frame"
    assert catalog.wire_name("kling-3.0-turbo-i2v", "image_tail") == "image_tail"
    assert catalog.wire_name("kling-3-motion-control", "image") == "image_url"


@pytest.mark.parametrize(
    "name", ["a.jpg", "../b c.JPEG", "~/c.png", "/tmp/d.Png", "picture\nof.png", Path("e.png")]
)
@pytest.mark.parametrize("model", [None, MODEL, "kling-3.0-turbo-i2v", "a-model-of-tomorrow"])
@pytest.mark.parametrize(
    "place",
    [
        lambda name: {"first_frame": name},
        lambda name: {"image": name},
        lambda name: {"image_url": name, "seed": 7},
        lambda name: {"image_list": [{"image_url": name, "type": "first_frame"}]},
    ],
    ids=["first_frame", "image", "image_url", "image_list"],
)
def test_a_file_in_extra_is_refused_because_its_name_would_be_sent(name, model, place):
    with pytest.raises(
        InvalidRequestError, match=r"in extra is the file .*: give the file as image, or the URL"
    ):
        VideoRequest("x", model=model, extra=place(name))


@pytest.mark.parametrize(
    "extra",
    [
        {"first_frame": "https://host/a.jpg"},
        {"first_frame": "data:image/png;base64,iVBORw0KGgo="},
        {"first_frame": "iVBORw0KGgo/jpg"},
        {"first_frame": None, "image_list": [], "refer_images": ["a", 5]},
        {"element_name": "cat.png"},
        {"image_list": ["a.png"]},
    ],
)
def test_what_can_be_no_file_in_extra_is_sent_as_it_is(extra):
    request = VideoRequest("x", model="kling-3.0-turbo-i2v", extra=extra)
    assert payload_of(request) == {"prompt": "x", **extra}


@pytest.mark.parametrize(
    "model, key", [("kling-3.0-turbo-i2v", "first_frame"), ("kling-3-motion-control", "image_url")]
)
@pytest.mark.parametrize("image", ["https://h/a.png", "a.png", Path("a.png")])
def test_a_picture_that_is_given_twice_is_refused_because_it_was_another_item_before(model, key, image):
    extra = {key: "https://h/a.png"}
    with pytest.raises(
        InvalidRequestError, match=f"{key} in extra is the image of this model, which is given too"
    ):
        VideoRequest("x", model=model, image=image, extra=extra)
    later = VideoRequest("x", image=image, extra=extra)
    with pytest.raises(InvalidRequestError, match="give the picture once"):
        attrs.evolve(later, model=model)


def test_an_item_that_was_sent_with_its_picture_under_two_keys_can_be_given_again():
    model, first, second = "kling-3.0-turbo-i2v", "https://h/a.png", "https://h/b.png"
    sent = {"prompt": "x", "image": second, "first_frame": first}
    assert payload_of(VideoRequest("x", model=model, image=first, extra={"image": second})) == sent
    entry = Entry(
        number=1, identity=Identity(None, "f", 0), model=model, payload=sent, state=EntryState.SUBMITTED
    )
    assert payload_of(entry.request) == sent


@pytest.mark.parametrize("model", ["kling-v2-6", "kling-v3-image-to-video", "a-model-of-tomorrow"])
def test_a_key_in_extra_that_is_no_picture_of_the_model_can_stand_beside_one(model):
    request = VideoRequest(
        "x", model=model, image="https://h/a.png", extra={"first_frame": "https://h/b.png"}
    )
    assert payload_of(request)["first_frame"] == "https://h/b.png"


def test_a_picture_and_the_same_in_extra_make_the_same_paid_item():
    model, url = "kling-3.0-turbo-i2v", "https://host/a.jpg"
    by_field = payload_of(VideoRequest("x", model=model, image=url))
    assert by_field == payload_of(VideoRequest("x", model=model, extra={"first_frame": url}))
    assert by_field == {"prompt": "x", "first_frame": url}


@pytest.mark.parametrize("rules", catalog.MODELS.values(), ids=list(catalog.MODELS))
def test_every_model_names_the_source_of_its_rules(rules):
    assert rules.source.startswith("docs.gmicloud.ai/")
    assert rules.parameters["prompt"].wire_name == "prompt"


@pytest.mark.parametrize("picture", ["s3://bucket/a.png", "file:///a.png", "https://", "http://[::1/a.png"])
def test_a_picture_at_a_url_that_no_service_can_fetch_is_refused_for_every_model(picture):
    for model in (MODEL, "a-model-of-tomorrow"):
        (rule,) = catalog.broken_rules(model, {"prompt": "x", "image": picture})
        assert rule.startswith("image must be ")


@pytest.mark.parametrize(
    "picture", ["a.webp", "https://example.com/a.webp", "data:image/webp;base64,AA==", Path("a")]
)
def test_a_picture_of_any_format_passes_for_an_unknown_model(picture):
    assert catalog.broken_rules("a-model-of-tomorrow", {"prompt": "x", "image_tail": picture}) == []


def test_a_picture_is_valid_unicode():
    (rule,) = catalog.broken_rules("a-model-of-tomorrow", {"prompt": "x", "image": "\ud800.png"})
    assert rule.startswith("image is not valid Unicode")
