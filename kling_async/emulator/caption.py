"""Text on pictures, in whatever writing the prompt uses and with whatever fonts the machine has."""

from __future__ import annotations

import textwrap
import unicodedata
from contextlib import suppress
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

FONT_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "STHeiti Light.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
)
"""Font files by the names under which Linux, macOS and Windows keep them; the one that can draw most is taken."""

_SIZE = 24
_MAX_LINES = 9


def draw_caption(
    text: str, *, footer: str, width: int, height: int, font_names: tuple[str, ...] = FONT_NAMES
) -> tuple[Image.Image, Image.Image]:
    """The text and a footer in white with a dark rim, as a picture and the mask to paste it with.

    What no font here can draw is left out; a text that would lose most of its letters is replaced by their number.
    """
    fonts = _load_fonts(font_names)
    font = max(fonts, key=lambda font: sum(_has_letter(letter, font) for letter in set(text)))
    words = keep_drawable(text, font)
    if 2 * len(words) <= len(text):
        words = f"({len(text)} characters)"
    lines = _wrap(words, width=width, most=max(1, min(_MAX_LINES, height // 36)))
    picture, mask = Image.new("L", (width, height)), Image.new("L", (width, height))
    for spot, shown, face in (
        ((width / 2, height / 2 - 12), "\n".join(lines), font),
        ((width / 2, height - 28), keep_drawable(footer, fonts[0]), fonts[0]),
    ):
        for canvas, rim in ((mask, 255), (picture, 0)):
            ImageDraw.Draw(canvas).multiline_text(
                spot, shown, fill=255, font=face, anchor="mm", align="center", stroke_width=2, stroke_fill=rim
            )
    return picture.convert("RGB"), mask


def keep_drawable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text in one line, without what the font lacks; where it lacks an accented letter, with the plain one."""
    kept = (_replace_letter(letter, font) for letter in text)
    return " ".join("".join(kept).split())


def _replace_letter(letter: str, font: ImageFont.FreeTypeFont) -> str:
    if letter.isspace():
        return " "
    forms = (letter, unicodedata.normalize("NFKD", letter)[0])
    return next((form for form in forms if _has_letter(form, font)), "")


@lru_cache(maxsize=20_000)
def _has_letter(letter: str, font: ImageFont.FreeTypeFont) -> bool:
    """True if the font has the letter: it does not draw it as it draws a code point that no font has."""
    return letter.isprintable() and _render(letter, font) != _render("\uffff", font)


def _render(letter: str, font: ImageFont.FreeTypeFont) -> bytes:
    picture = Image.new("1", (2 * _SIZE, 2 * _SIZE))
    ImageDraw.Draw(picture).text((0, 0), letter, fill=1, font=font)
    return picture.tobytes()


def _wrap(text: str, *, width: int, most: int) -> list[str]:
    """The text in lines that fit; a text with many wide letters gets fewer to a line."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    letter_width = _SIZE * (1.0 if wide > len(text) / 4 else 0.62)
    return textwrap.wrap(text, int(0.92 * width / letter_width), max_lines=most, placeholder=" …")


@cache
def _load_fonts(names: tuple[str, ...]) -> list[ImageFont.FreeTypeFont]:
    """The fonts of these names that are installed, then the one inside Pillow, which knows English letters only."""
    found = []
    for name in names:
        with suppress(OSError):
            found.append(ImageFont.truetype(name, _SIZE))
    embedded = ImageFont.load_default(_SIZE)
    assert isinstance(embedded, ImageFont.FreeTypeFont)
    return [*found, embedded]
