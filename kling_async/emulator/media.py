"""Real MP4 and JPEG files, with the same bytes for the same request.

A video shows its prompt on a moving background. The prompt determines the colour of the background and the chord of
the sound, so that different videos look and sound different.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
from array import array
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import attrs
import av
from PIL import Image, ImageDraw

from kling_async.emulator.caption import draw_caption

FRAMES_PER_SECOND = 12
SAMPLES_PER_SECOND = 44_100

SIZES = {"16:9": (640, 360), "9:16": (360, 640), "1:1": (480, 480)}
"""Width and height of a video, by its aspect ratio."""
_SECONDS = frozenset(str(seconds) for seconds in range(1, 16))


@attrs.frozen(kw_only=True)
class Clip:
    """The content of one video."""

    prompt: str
    seconds: int = 5
    has_sound: bool = False
    width: int = 640
    height: int = 360

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Clip:
        """The clip of a submitted payload; absent or invalid values get the default."""
        width, height = SIZES.get(str(payload.get("aspect_ratio")), SIZES["16:9"])
        seconds = str(payload.get("duration")).lstrip("0")
        return cls(
            prompt=str(payload.get("prompt") or _join_prompts(payload.get("multi_prompt"))),
            seconds=int(seconds) if seconds in _SECONDS else 5,
            has_sound=payload.get("sound") in ("on", "yes"),
            width=width,
            height=height,
        )

    @property
    def fingerprint(self) -> bytes:
        """20 bytes, derived from the prompt, that choose colour and chord."""
        return hashlib.sha1(self.prompt.encode(errors="replace"), usedforsecurity=False).digest()


def _join_prompts(shots: Any) -> str:
    """The prompts of the shots of one video as one text."""
    shots = shots if isinstance(shots, list) else []
    return " / ".join(str(shot.get("prompt")) for shot in shots if isinstance(shot, dict))


def encode_video(clip: Clip) -> bytes:
    """An MP4 file: H.264, and AAC only if the clip has sound. Takes about 0.1 seconds of CPU time."""
    file = io.BytesIO()
    # Without bitexact the muxer writes its version; with more than one thread x264 may slice frames differently.
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        picture = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        picture.width, picture.height, picture.pix_fmt = clip.width, clip.height, "yuv420p"
        picture.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "30", "threads": "1"}
        sound = (
            container.add_stream("aac", rate=SAMPLES_PER_SECOND, layout="mono") if clip.has_sound else None
        )
        for image in _draw_frames(clip):
            container.mux(picture.encode(av.VideoFrame.from_image(image)))  # type: ignore[no-untyped-call]
        container.mux(picture.encode())
        if sound is not None:
            container.mux(sound.encode(_make_chord(clip)))
            container.mux(sound.encode())
    return file.getvalue()


def encode_thumbnail(clip: Clip) -> bytes:
    """The first frame as a JPEG file."""
    file = io.BytesIO()
    next(_draw_frames(clip)).save(file, "JPEG", quality=80)
    return file.getvalue()


def _draw_frames(clip: Clip) -> Iterator[Image.Image]:
    """The frames of the clip: a moving background, a progress bar and a fixed caption."""
    background = _draw_background(clip)
    caption, mask = draw_caption(
        clip.prompt,
        footer=f"#{clip.fingerprint.hex()[:6]} · {clip.seconds} s · {'sound' if clip.has_sound else 'silent'}",
        width=clip.width,
        height=clip.height,
    )
    count = clip.seconds * FRAMES_PER_SECOND
    for number in range(count):
        left = round(number / count * clip.width)
        image = background.crop((left, 0, left + clip.width, clip.height))
        image.paste(caption, mask=mask)
        done = round((number + 1) / count * clip.width)
        ImageDraw.Draw(image).rectangle((0, clip.height - 6, done, clip.height), fill="white")
        yield image


def _draw_background(clip: Clip) -> Image.Image:
    """A wave of light in the colour of the prompt, twice as wide as the clip so that it can move without a seam."""
    hue = clip.fingerprint[0] / 256
    row = Image.new("RGB", (2 * clip.width, 1))
    for x in range(2 * clip.width):
        light = 0.42 + 0.18 * math.sin(2 * math.pi * x / clip.width)
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.55)
        row.putpixel((x, 0), (round(255 * red), round(255 * green), round(255 * blue)))
    return row.resize((2 * clip.width, clip.height))


def _make_chord(clip: Clip) -> av.AudioFrame:
    """Samples for the whole video: a root note, chosen by the prompt, and its fifth."""
    root = 2 * math.pi * 110 * 2 ** (clip.fingerprint[1] % 24 / 12) / SAMPLES_PER_SECOND
    # One second is computed and repeated; a soft click may be heard between the seconds.
    second = array(
        "h",
        (round(3000 * (math.sin(root * n) + math.sin(1.5 * root * n))) for n in range(SAMPLES_PER_SECOND)),
    )
    frame = av.AudioFrame(format="s16", layout="mono", samples=clip.seconds * SAMPLES_PER_SECOND)
    frame.planes[0].update((second * clip.seconds).tobytes())
    frame.sample_rate = SAMPLES_PER_SECOND
    frame.pts = 0
    frame.time_base = Fraction(1, SAMPLES_PER_SECOND)
    return frame
