from __future__ import annotations

import io

import av
import pytest
from PIL import Image

from kling_async.emulator.media import Clip, encode_thumbnail, encode_video


def decode(content):
    """Codec and seconds of each track, from all of its packets, and the first frame."""
    with av.open(io.BytesIO(content)) as container:
        tracks, picture = {}, None
        for stream in container.streams:
            container.seek(0)
            seconds = 0.0
            for frame in container.decode(stream):
                if isinstance(frame, av.VideoFrame):
                    picture = picture or frame
                    seconds += 1 / float(stream.average_rate)
                else:
                    seconds += frame.samples / frame.sample_rate
            tracks[stream.type] = (stream.codec_context.name, seconds)
    return tracks, picture


@pytest.mark.unmeasured
@pytest.mark.parametrize("seconds", [5, 10])
@pytest.mark.parametrize("has_sound", [True, False])
def test_a_video_has_the_requested_length_and_tracks(seconds, has_sound):
    tracks, picture = decode(encode_video(Clip(prompt="rain", seconds=seconds, has_sound=has_sound)))

    assert tracks["video"] == ("h264", pytest.approx(seconds, abs=0.01))
    assert (picture.width, picture.height, picture.format.name) == (640, 360, "yuv420p")
    assert ("audio" in tracks) == has_sound
    if has_sound:
        assert tracks["audio"] == ("aac", pytest.approx(seconds, abs=0.1))


def test_sound_is_audible():
    with av.open(io.BytesIO(encode_video(Clip(prompt="rain", seconds=1, has_sound=True)))) as container:
        loudest = max(
            abs(sample)
            for frame in container.decode(audio=0)
            for sample in memoryview(frame.planes[0]).cast("f")[: frame.samples]
        )
    assert 0.05 < loudest < 1.0


def test_the_same_clip_is_the_same_bytes():
    clip = Clip(prompt="rain", seconds=1, has_sound=True)

    assert encode_video(clip) == encode_video(clip)
    assert encode_thumbnail(clip) == encode_thumbnail(clip)


def test_videos_of_different_prompts_look_different():
    first, second = (Clip(prompt=prompt, seconds=1) for prompt in ("rain", "snow"))
    pictures = [Image.open(io.BytesIO(encode_thumbnail(clip))).resize((1, 1)) for clip in (first, second)]

    assert encode_video(first) != encode_video(second)
    assert pictures[0].getpixel((0, 0)) != pictures[1].getpixel((0, 0))


def test_the_picture_moves():
    with av.open(io.BytesIO(encode_video(Clip(prompt="rain", seconds=1)))) as container:
        frames = [bytes(frame.planes[0]) for frame in container.decode(video=0)]

    assert len(set(frames)) == len(frames) == 12


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (480, 480)])
def test_a_thumbnail_is_a_jpeg_of_the_videos_size(size):
    width, height = size
    picture = Image.open(io.BytesIO(encode_thumbnail(Clip(prompt="rain", width=width, height=height))))

    assert (picture.format, picture.size) == ("JPEG", size)


@pytest.mark.parametrize(
    "prompt", ["", "</script>\x00\u202e", "\ud800", "雨" * 2500, "x" * 2500, "\N{GRINNING FACE}", "a\n\tb"]
)
def test_any_prompt_can_be_encoded(prompt):
    tracks, _ = decode(encode_video(Clip(prompt=prompt, seconds=1)))

    assert tracks["video"] == ("h264", pytest.approx(1.0))


@pytest.mark.parametrize(
    "payload, clip",
    [
        ({"prompt": "rain"}, {"prompt": "rain"}),
        ({}, {"prompt": ""}),
        ({"prompt": None, "sound": "off", "duration": None}, {"prompt": ""}),
        (
            {"prompt": "rain", "duration": "10", "sound": "on"},
            {"prompt": "rain", "seconds": 10, "has_sound": True},
        ),
        (
            {"prompt": "rain", "duration": 10, "sound": "yes"},
            {"prompt": "rain", "seconds": 10, "has_sound": True},
        ),
        ({"prompt": "rain", "duration": "0", "sound": []}, {"prompt": "rain"}),
        ({"prompt": "rain", "duration": "9999999"}, {"prompt": "rain"}),
        ({"prompt": "rain", "duration": "9" * 5000}, {"prompt": "rain"}),
        ({"prompt": "rain", "duration": "010"}, {"prompt": "rain", "seconds": 10}),
        ({"multi_prompt": [{"prompt": "rain"}, {"prompt": "snow"}, 7]}, {"prompt": "rain / snow"}),
        ({"multi_prompt": "rain"}, {"prompt": ""}),
        ({"prompt": "rain", "multi_prompt": [{"prompt": "snow"}]}, {"prompt": "rain"}),
        ({"prompt": "rain", "aspect_ratio": "9:16"}, {"prompt": "rain", "width": 360, "height": 640}),
        ({"prompt": "rain", "aspect_ratio": "1:1"}, {"prompt": "rain", "width": 480, "height": 480}),
        ({"prompt": "rain", "aspect_ratio": {}}, {"prompt": "rain"}),
    ],
)
def test_a_clip_follows_from_the_payload(payload, clip):
    assert Clip.from_payload(payload) == Clip(**clip)
