from __future__ import annotations

import pytest

from kling_async.emulator.model_catalog import MODELS, find_model

V26, OMNI = MODELS["kling-v2-6"], MODELS["kling-v3-omni"]
ELEMENT = MODELS["kling-create-element"]
SHOTS = [{"index": 1, "prompt": "rain", "duration": "3"}, {"index": 2, "prompt": "snow", "duration": 2}]
FRONT = {
    "element_name": "cat",
    "element_description": "a grey cat",
    "reference_type": "image_refer",
    "frontal_image": "iVBORw0KGgo=",
}


@pytest.mark.parametrize(
    "model, payload, missing_keys",
    [
        ("kling-v2-6", {}, ["prompt"]),
        ("kling-v2-6", {"prompt": ""}, ["prompt"]),
        ("kling-v2-6", {"prompt": None}, ["prompt"]),
        ("kling-v2-6", {"prompt": "rain"}, []),
        ("kling-3.0-turbo-i2v", {"image": "https://example.com/a.png"}, ["first_frame"]),
        ("kling-v3-omni", {}, ["prompt"]),
        ("kling-v3-omni", {"multi_shot": True}, ["prompt"]),
        ("kling-v3-omni", {"multi_shot": True, "multi_prompt": []}, ["prompt"]),
        ("kling-v3-omni", {"multi_shot": False, "multi_prompt": SHOTS}, ["prompt"]),
        ("kling-v3-omni", {"multi_shot": True, "multi_prompt": SHOTS}, []),
        ("kling-v3-text-to-video", {"multi_shot": True, "multi_prompt": SHOTS}, ["prompt"]),
        (
            "kling-create-element",
            {},
            ["element_name", "element_description", "reference_type", "frontal_image"],
        ),
        ("kling-create-element", FRONT, []),
        (
            "kling-create-element",
            {key: value for key, value in FRONT.items() if key != "frontal_image"}
            | {"reference_type": "video_refer", "refer_video": "https://example.com/cat.mp4"},
            [],
        ),
        ("kling-create-element", FRONT | {"frontal_image": ""}, ["frontal_image"]),
        ("kling-3-motion-control", {}, ["image_url", "video_url", "character_orientation", "mode"]),
    ],
)
def test_absent_and_empty_keys_are_missing(model, payload, missing_keys):
    assert MODELS[model].missing_keys(payload) == missing_keys


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"duration": "10", "sound": "on", "cfg_scale": 0.5, "mode": "pro", "image": "https://example.com/a.png"},
        {"duration": 5, "sound": "yes", "cfg_scale": "0.5", "image": "data:image/png;base64,AA=="},
        {"image": "iVBORw0KGgo="}, {"image": "iVBO\nRw0K\nGgo=\n"},
        {"cfg_scale": 0}, {"cfg_scale": 1.0}, {"prompt": "x" * 2500},
        {"duration": None, "aspect_ratio": "unread", "seed": [1]},
    ],
)  # fmt: skip
def test_a_valid_payload_has_no_error(payload):
    assert V26.find_error({"prompt": "rain", **payload}) is None


@pytest.mark.parametrize(
    "payload, names",
    [
        ({"prompt": "x" * 2501}, "prompt must not exceed 2500"),
        ({"prompt": ["rain"]}, "prompt must be a string"),
        ({"duration": "7"}, "duration must be one of 5, 10"),
        ({"duration": 5.0}, "duration"),
        ({"sound": True}, "sound"),
        ({"mode": "std"}, "mode must be one of pro"),
        ({"cfg_scale": 1.1}, "cfg_scale must be in [0,1]"),
        ({"cfg_scale": True}, "cfg_scale"),
        ({"cfg_scale": "much"}, "cfg_scale"),
        ({"cfg_scale": 10**400}, "cfg_scale"),
        ({"image": "cat.png"}, "image must be a URL or Base64"),
        ({"image": "picture"}, "image"),
        ({"image": ""}, "image"),
        ({"image": "    "}, "image"),
        ({"image": "Katze\N{SNOWMAN}"}, "image"),
        ({"image": ["https://example.com/a.png"]}, "image"),
    ],
)
def test_the_error_names_the_first_invalid_value(payload, names):
    error = V26.find_error({"prompt": "rain", **payload})

    assert error is not None
    assert error.startswith(names)
    assert error.endswith("(code: InvalidParameter)")


@pytest.mark.parametrize(
    "payload",
    [
        {"multi_prompt": SHOTS},
        {"multi_prompt": SHOTS, "duration": "5", "multi_shot": True},
        {"multi_prompt": SHOTS, "duration": 5, "multi_shot": "true"},
        {"multi_prompt": [{"prompt": "rain", "duration": 1}] * 6, "duration": "6"},
        {
            "image_list": [{"image_url": "https://example.com/a.png", "type": "first_frame"}],
            "element_list": [{"element_id": "3"}],
        },
    ],
)
def test_a_valid_multi_shot_payload_has_no_error(payload):
    assert OMNI.find_error(payload) is None


@pytest.mark.parametrize(
    "payload, names",
    [
        ({"multi_prompt": "rain"}, "multi_prompt must be a list"),
        ({"multi_prompt": []}, "multi_prompt must have 1 to 6 entries"),
        ({"multi_prompt": SHOTS[:1] * 7}, "multi_prompt must have 1 to 6 entries"),
        ({"multi_prompt": ["rain"]}, "multi_prompt must have a prompt and a duration of 1 second or more"),
        ({"multi_prompt": [{"prompt": "", "duration": 5}]}, "multi_prompt"),
        ({"multi_prompt": [{"prompt": 7, "duration": 5}]}, "multi_prompt"),
        ({"multi_prompt": [{"prompt": "rain", "duration": "0"}]}, "multi_prompt"),
        ({"multi_prompt": [{"prompt": "rain", "duration": "inf"}]}, "multi_prompt"),
        ({"multi_prompt": [{"prompt": "rain"}]}, "multi_prompt"),
        ({"multi_prompt": SHOTS, "duration": "10"}, "the durations in multi_prompt must add up to 10"),
        ({"multi_shot": "yes"}, "multi_shot must be true or false"),
        ({"image_list": {"image_url": "https://example.com/a.png"}}, "image_list must be a list"),
    ],
)
def test_the_error_names_an_invalid_list(payload, names):
    error = OMNI.find_error(payload)

    assert error is not None
    assert error.startswith(names)
    assert error.endswith("(code: InvalidParameter)")


@pytest.mark.parametrize(
    "change, names",
    [
        ({}, None),
        ({"refer_images": ["https://example.com/side.png", "iVBORw0KGgo="]}, None),
        ({"refer_images": ["iVBORw0KGgo="] * 4}, "refer_images must have 1 to 3 entries"),
        ({"refer_images": ["side.png"]}, "refer_images must be URLs or Base64"),
        ({"element_name": "c" * 21}, "element_name must not exceed 20"),
        ({"reference_type": "image"}, "reference_type must be one of image_refer, video_refer"),
        ({"refer_video": "iVBORw0KGgo="}, "refer_video must be a URL"),
    ],
)
def test_an_element_follows_its_rules(change, names):
    error = ELEMENT.find_error(FRONT | change)

    assert (error is None) == (names is None)
    assert (error or "").startswith(names or "")


def test_an_element_is_described_as_text():
    assert ELEMENT.describe()["modalities"]["output"] == [{"type": "text", "required": True}]


def test_an_unknown_model_has_no_rules():
    assert find_model("kling-v9").find_error({"duration": "7"}) is None
    assert find_model("kling-v2-6") is V26


def test_a_description_has_the_id_and_parameters_of_the_model():
    for model_id, model in MODELS.items():
        description = model.describe()
        assert description["model"] == model_id
        assert [row["name"] for row in description["parameters"]] == [row.name for row in model.parameters]


def test_a_description_has_bounds_and_options_if_the_model_has_them():
    description = {row["name"]: row for row in V26.describe()["parameters"]}

    assert (description["cfg_scale"]["min"], description["cfg_scale"]["max"]) == (0.0, 1.0)
    assert description["duration"]["options"] == ["5", "10"]
    assert "options" not in description["prompt"]
    assert [name for name, row in description.items() if row["required"]] == ["prompt"]


def test_prices_are_micro_dollars_or_absent():
    assert "price_info" not in V26.describe()
    assert MODELS["Kling-Text2Video-V2.1-Master"].describe()["price_info"] == {
        "price": 280_000,
        "pricing_type": "per_request",
        "unit": "request",
    }
    assert MODELS["kling-v3-text-to-video"].describe()["price_info"]["price"] == 168_000


def test_modalities_follow_from_the_parameters():
    assert MODELS["kling-v3-image-to-video"].describe()["modalities"]["input"] == [
        {"type": "text", "required": False},
        {"type": "image", "required": False},
    ]
