from __future__ import annotations

import pytest

from kling_async.emulator.model_catalog import MODELS

V26 = MODELS["kling-v2-6"]


@pytest.mark.parametrize(
    "model, payload, missing_keys",
    [
        ("kling-v2-6", {}, ["prompt"]),
        ("kling-v2-6", {"prompt": ""}, ["prompt"]),
        ("kling-v2-6", {"prompt": None}, ["prompt"]),
        ("kling-v2-6", {"prompt": "rain"}, []),
        ("kling-3.0-turbo-i2v", {"image": "https://example.com/a.png"}, ["first_frame"]),
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
        ({"image": "cat.png"}, "image must be a URL"),
        ({"image": ["https://example.com/a.png"]}, "image"),
    ],
)
def test_the_error_names_the_first_invalid_value(payload, names):
    error = V26.find_error({"prompt": "rain", **payload})

    assert error is not None
    assert error.startswith(names)
    assert error.endswith("(code: InvalidParameter)")


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
