"""Text on pictures, in any script, with the fonts that the machine has."""

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
"""Names of font files on Linux, macOS and Windows. The font that has the most letters of the text is used."""

_SIZE = 24
_MAX_LINES = 9


def draw_caption(
    text: str, *, footer: str, width: int, height: int, font_names: tuple[str, ...] = FONT_NAMES
) -> tuple[Image.Image, Image.Image]:
    """The text and a footer in white with a dark outline, as a picture and its mask.

    Letters that the font lacks are left out. A text that would lose most of its letters is replaced by their number.
    """
    fonts = _load_fonts(font_names)
    font = max(fonts, key=lambda font: sum(_has_letter(letter, font) for letter in set(text)))
    words = keep_drawable(text, font)
    if 2 * len(words) <= len(text):
        words = f"({len(text)} characters)"
    lines = _wrap(words, width=width, max_lines=max(1, min(_MAX_LINES, height // 36)))
    picture, mask = Image.new("L", (width, height)), Image.new("L", (width, height))
    for center, line, line_font in (
        ((width / 2, height / 2 - 12), "\n".join(lines), font),
        ((width / 2, height - 28), keep_drawable(footer, fonts[0]), fonts[0]),
    ):
        for canvas, outline in ((mask, 255), (picture, 0)):
            ImageDraw.Draw(canvas).multiline_text(
                center,
                line,
                fill=255,
                font=line_font,
                anchor="mm",
                align="center",
                stroke_width=2,
                stroke_fill=outline,
            )
    return picture.convert("RGB"), mask


def keep_drawable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text in one line, without the letters that the font lacks; a missing accented letter becomes the plain one."""
    letters = (_replace_letter(letter, font) for letter in text)
    return " ".join("".join(letters).split())


def _replace_letter(letter: str, font: ImageFont.FreeTypeFont) -> str:
    if letter.isspace():
        return " "
    forms = (letter, unicodedata.normalize("NFKD", letter)[0])
    return next((form for form in forms if _has_letter(form, font)), "")


@lru_cache(maxsize=20_000)
def _has_letter(letter: str, font: ImageFont.FreeTypeFont) -> bool:
    """True if the font has the letter: the font draws it otherwise than U+FFFF, which no font has."""
    return letter.isprintable() and _render_letter(letter, font) != _render_letter("\uffff", font)


def _render_letter(letter: str, font: ImageFont.FreeTypeFont) -> bytes:
    picture = Image.new("1", (2 * _SIZE, 2 * _SIZE))
    ImageDraw.Draw(picture).text((0, 0), letter, fill=1, font=font)
    return picture.tobytes()


def _wrap(text: str, *, width: int, max_lines: int) -> list[str]:
    """The text in lines that fit the width. A text with many wide letters gets fewer letters per line."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    letter_width = _SIZE * (1.0 if wide > len(text) / 4 else 0.62)
    return textwrap.wrap(text, int(0.92 * width / letter_width), max_lines=max_lines, placeholder=" …")


@cache
def _load_fonts(names: tuple[str, ...]) -> list[ImageFont.FreeTypeFont]:
    """The installed fonts of these names, then the font inside Pillow, which has English letters only."""
    fonts = []
    for name in names:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, _SIZE))
    embedded = ImageFont.load_default(_SIZE)
    assert isinstance(embedded, ImageFont.FreeTypeFont)
    return [*fonts, embedded]
