"""The models of the service, as data.

Source: the vendor's model pages and the live model list of April 2026; prices as published, in micro-dollars.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kling_async.emulator.model_rules import Model, Parameter

_PROMPT = Parameter(name="prompt", maximum=2500)
_NEEDED_PROMPT = attrs.evolve(_PROMPT, is_required=True)
_NEGATIVE = Parameter(name="negative_prompt", maximum=2500)
_IMAGE = Parameter(name="image", type="image")
_NEEDED_IMAGE = attrs.evolve(_IMAGE, is_required=True)
_DURATION = Parameter(name="duration", type="enum", default="5", options=("5", "10"))
_LONG_DURATION = attrs.evolve(_DURATION, options=tuple(str(seconds) for seconds in range(3, 16)))
_ASPECT = Parameter(name="aspect_ratio", type="enum", default="16:9", options=("16:9", "9:16", "1:1"))
_SOUND = Parameter(name="sound", type="enum", default="off", options=("on", "off"))
_MODE_PRO = Parameter(name="mode", type="enum", default="pro", options=("pro",))
_MODE = attrs.evolve(_MODE_PRO, options=("std", "pro"))
_NEEDED_MODE = attrs.evolve(_MODE, is_required=True, default="")
_CFG = Parameter(name="cfg_scale", type="float", default=0.5, minimum=0.0, maximum=1.0)
_RESOLUTION = Parameter(name="resolution", type="enum", default="720p", options=("720p", "1080p"))

_FROM_TEXT = (_PROMPT, _NEGATIVE, _DURATION, _ASPECT, _CFG)
_FROM_IMAGE = (_NEEDED_IMAGE, _PROMPT, _NEGATIVE, _DURATION, _CFG)
_MOTION = (
    Parameter(name="image_url", type="image", is_required=True),
    Parameter(name="video_url", type="video", is_required=True),
    Parameter(name="character_orientation", type="enum", is_required=True, options=("video", "image")),
    _NEEDED_MODE,
    Parameter(name="keep_original_sound", type="enum", default="yes", options=("yes", "no")),
    _PROMPT,
)
_V3_PRICE = "$0.168/second; $0.252/second with sound"
_TURBO_PRICE = "720p: $0.112/second; 1080p: $0.14/second"

_MODELS = (
    Model(
        id="kling-v2-6",
        # The vendor's table has yes and no, its examples have on and off: the emulator accepts both.
        parameters=(
            _NEEDED_PROMPT,
            _IMAGE,
            attrs.evolve(_SOUND, options=("on", "off", "yes", "no")),
            _DURATION,
            _MODE_PRO,
            _CFG,
        ),
    ),
    Model(
        id="kling-v2-5-turbo",
        parameters=(_NEEDED_PROMPT, _IMAGE, _DURATION, _NEGATIVE, _MODE_PRO, _CFG),
    ),
    Model(
        id="Kling-Text2Video-V2.1-Master",
        parameters=_FROM_TEXT,
        price_microdollars=280_000,
        price_unit="request",
        price_note="$0.28/request",
    ),
    Model(
        id="Kling-Image2Video-V2.1-Master",
        parameters=_FROM_IMAGE,
        price_microdollars=280_000,
        price_unit="request",
        price_note="$0.28/request",
    ),
    Model(id="Kling-Image2Video-V2.1-Pro", parameters=_FROM_IMAGE),
    Model(id="Kling-Image2Video-V2.1-Standard", parameters=_FROM_IMAGE),
    Model(id="Kling-Text2Video-V2-Master", parameters=_FROM_TEXT),
    Model(id="Kling-Image2Video-V2-Master", parameters=_FROM_IMAGE),
    Model(
        id="Kling-Image2Video-V1.6-Pro",
        parameters=_FROM_IMAGE,
        price_microdollars=98_000,
        price_unit="request",
        price_note="$0.098/request",
    ),
    Model(id="Kling-Image2Video-V1.6-Standard", parameters=_FROM_IMAGE),
    Model(id="Kling-Text2Video-V1.6-Standard", parameters=_FROM_TEXT),
    Model(
        id="kling-v3-text-to-video",
        outcome="media_urls",
        parameters=(_NEEDED_PROMPT, _NEGATIVE, _LONG_DURATION, _ASPECT, _SOUND),
        price_microdollars=168_000,
        price_note=_V3_PRICE,
    ),
    Model(
        id="kling-v3-image-to-video",
        outcome="media_urls",
        parameters=(
            _NEEDED_PROMPT,
            _NEEDED_IMAGE,
            attrs.evolve(_IMAGE, name="image_tail"),
            _NEGATIVE,
            _LONG_DURATION,
            _SOUND,
        ),
        price_microdollars=168_000,
        price_note=_V3_PRICE,
    ),
    Model(
        id="kling-3.0-turbo-t2v",
        outcome="media_urls",
        parameters=(_NEEDED_PROMPT, _RESOLUTION, _ASPECT, _LONG_DURATION),
        price_microdollars=112_000,
        price_note=_TURBO_PRICE,
    ),
    Model(
        id="kling-3.0-turbo-i2v",
        outcome="media_urls",
        parameters=(attrs.evolve(_NEEDED_IMAGE, name="first_frame"), _PROMPT, _RESOLUTION, _LONG_DURATION),
        price_microdollars=112_000,
        price_note=_TURBO_PRICE,
    ),
    Model(
        id="kling-v3-omni",
        parameters=(
            attrs.evolve(_NEEDED_PROMPT, unless=("multi_shot", "multi_prompt")),
            _MODE,
            _LONG_DURATION,
            _ASPECT,
            _SOUND,
            Parameter(name="multi_shot", type="boolean"),
            Parameter(name="shot_type"),
            Parameter(name="multi_prompt", type="shots", maximum=6),
            Parameter(name="image_list", type="list"),
            Parameter(name="video_list", type="list"),
            Parameter(name="element_list", type="list"),
        ),
        price_microdollars=84_000,
        price_note="std $0.084/second; std with sound and pro $0.112/second; pro with sound $0.14/second",
    ),
    Model(
        id="kling-create-element",
        makes="element",
        # No page was read: the keys are those that a client of the service sends.
        parameters=(
            Parameter(name="element_name", maximum=20, is_required=True),
            Parameter(name="element_description", maximum=100, is_required=True),
            Parameter(
                name="reference_type", type="enum", is_required=True, options=("image_refer", "video_refer")
            ),
            Parameter(
                name="frontal_image", type="image", is_required=True, unless=("reference_type=video_refer",)
            ),
            Parameter(name="refer_images", type="images", maximum=3),
            Parameter(name="refer_video", type="video"),
            Parameter(name="tag_list", type="list"),
        ),
    ),
    Model(id="kling-2.6-motion-control", parameters=_MOTION),
    Model(id="kling-3-motion-control", parameters=_MOTION),
    Model(id="kling-o1-image-to-video", parameters=(_NEEDED_PROMPT, _IMAGE, _DURATION)),
    Model(id="kling-o1-reference-to-video", parameters=(_NEEDED_PROMPT, _IMAGE, _DURATION)),
    Model(id="kling-o1-flfv", parameters=(_NEEDED_PROMPT, _IMAGE, _DURATION)),
    Model(
        id="kling-o1-edit-video",
        parameters=(_NEEDED_PROMPT, Parameter(name="video_url", type="video"), _DURATION),
    ),
)

MODELS: Mapping[str, Model] = {model.id: model for model in _MODELS}
"""Every model by its id."""


def find_model(model_id: str) -> Model:
    """The model with the id; for an unknown id, a model without parameters."""
    return MODELS.get(model_id) or Model(id=model_id, parameters=())
