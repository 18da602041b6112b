"""The fingerprints of payloads stay as they are: with another one, a later run buys a finished item again.

A later run recognises an item by the fingerprint of its payload. So the forms that `payload_of` gives to values, the keys that
`wire_name` chooses, the default model and the digest itself are part of every journal that users have.
"""

from __future__ import annotations

import pytest

from kling_async import VideoRequest
from kling_async._engine.submit.item_identifier import ItemIdentifier
from kling_async._engine.submit.picture_digests import PictureDigests
from kling_async._policy.list_prices import LIST_PRICES
from kling_async.catalog import DEFAULT_MODEL, MODELS
from kling_async.requests import PARAMETERS

IS_BOUGHT_AGAIN = (
    "This request has another fingerprint now, so each such item that a journal has finished is a new item, and the same call "
    "pays for its video again. Leave the form of the payload as it is; or, before you change the value here, let "
    "ItemIdentifier also give the fingerprint of the old form, as it does for journals of version 1 (former_fingerprint)."
)
EVERY_PARAMETER = {
    "prompt": "A cat on a roof",
    "image": "https://example.com/first.png",
    "image_tail": "https://example.com/last.png",
    "negative_prompt": "rain",
    "sound": True,
    "duration": 10,
    "mode": "pro",
    "cfg_scale": 0.5,
    "aspect_ratio": "16:9",
    "resolution": "1080p",
}
OF_EVERY_PARAMETER = {
    "kling-v2-6": "265f55610bd56dd7b194dd842f7d0b1a",
    "kling-v3-text-to-video": "edf7e727c60f9be42cdf603b245bd527",
    "kling-v3-image-to-video": "ba70f31588a75cd537297bda933929f6",
    "kling-3.0-turbo-t2v": "3e354f530ff235320f7c3e9a8cff01dd",
    "kling-3.0-turbo-i2v": "ce189149baa6dfc3f684cc9c6d3debb7",
    "kling-v3-omni": "0cf6bf0b8eb410654cfa4490597ffc4c",
    "Kling-Text2Video-V2.1-Master": "1bec097cc29b7fe3cd8a44895bc922f2",
    "Kling-Image2Video-V2.1-Master": "d3e0d7066d729fa6e123a41d0d9a7db1",
    "Kling-Image2Video-V1.6-Pro": "c496f58914c98a1e451a01710de7433c",
}
OF_ONE_PARAMETER = {
    "prompt": "06b1a4b11261f1de201a53323bb290ba",
    "sound": "c2dca6355a2e405f2ebbc0872dd4e6c8",
    "image": "9517bcd079791bbdf55cfa23368b04f9",
    "duration": "1fcc1e5e053ea1e6c36f1f7e9cdf7c19",
    "mode": "b7f5483f6132a88f8879012975c5ec17",
    "cfg_scale": "d2c1e9669ee9029ed1af8e73ba34cf2d",
}


def parameters_of_model(model):
    """Every parameter that the model takes; all of them for a model without rules."""
    rules = MODELS.get(model)
    return {
        name: value for name, value in EVERY_PARAMETER.items() if rules is None or name in rules.parameters
    }


async def fingerprint_of(request):
    digests = await PictureDigests().read(request)
    identity = ItemIdentifier().identify_request(request, digests)
    return identity.fingerprint


def test_every_parameter_and_every_listed_model_has_a_pinned_fingerprint():
    assert set(EVERY_PARAMETER) == set(PARAMETERS)
    assert set(OF_EVERY_PARAMETER) == {*MODELS, *LIST_PRICES}
    assert set(OF_ONE_PARAMETER) == {*MODELS[DEFAULT_MODEL].parameters}


@pytest.mark.parametrize("model", OF_EVERY_PARAMETER)
async def test_a_request_with_every_parameter_of_its_model_keeps_its_fingerprint(model):
    request = VideoRequest(**parameters_of_model(model), model=model)

    assert await fingerprint_of(request) == OF_EVERY_PARAMETER[model], IS_BOUGHT_AGAIN


@pytest.mark.parametrize("name", OF_ONE_PARAMETER)
async def test_a_request_with_one_parameter_and_no_model_keeps_its_fingerprint(name):
    request = VideoRequest(**{"prompt": "A cat on a roof", name: EVERY_PARAMETER[name]})

    assert await fingerprint_of(request) == OF_ONE_PARAMETER[name], IS_BOUGHT_AGAIN


@pytest.mark.parametrize(
    "options, pinned",
    [
        ({"sound": False}, "abe2a5160f02471fdc5578f00f5dfcdd"),
        ({"duration": 5}, "31cab1833cd88170147b977ce8376fe7"),
        ({"cfg_scale": 1.0}, "07d5d1dd3c9eea5bdeaa933d714e5c6f"),
        ({"extra": {"duration": 5, "camera": {"zoom": [1, 2.5]}}}, "a8de092f68e8d107c689a74cda699acf"),
    ],
    ids=["sound off", "five seconds", "a whole number", "extra"],
)
async def test_a_request_with_another_value_keeps_its_fingerprint(options, pinned):
    assert await fingerprint_of(VideoRequest("A cat on a roof", **options)) == pinned, IS_BOUGHT_AGAIN


async def test_a_request_with_a_local_picture_keeps_its_fingerprint_in_every_folder(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        picture = tmp_path / folder / "cat.png"
        picture.write_bytes(b"\x89PNG picture of a cat")

        assert (
            await fingerprint_of(VideoRequest("A cat on a roof", image=picture))
            == "65b73f77f42c7122e644943576ed43a8"
        ), IS_BOUGHT_AGAIN
