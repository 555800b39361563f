"""The confusion matrix as a picture: correct in blue, confusions in red, darker if more frequent.

Letters: N classes.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from asr.evaluation.classification import Confusion, accuracy_text
from asr.io.files import atomic_path

# Pixels, twice the size on a page, for sharp display.
CELL = 96
MARGIN = 32
FONT = 30
LEAD = 48  # from line to line

WHITE, INK, PALE, GRID = (255, 255, 255), (30, 30, 30), (110, 110, 110), (225, 225, 225)
HIT, MISS = (31, 95, 168), (196, 48, 32)
# Share of its class at which a confusion has the full colour: good classifiers make few.
DARKEST_MISS = 0.3

Colour = tuple[int, int, int]


def write_picture(result: Confusion, path: str | Path, title: str) -> None:
    """Write a PNG, atomically."""
    with atomic_path(path) as temporary:
        draw(result, title).save(temporary, format="PNG")


def draw(result: Confusion, title: str) -> Image.Image:
    """True class by row, predicted class by column, with recall and precision at the edges.

    Cells are coloured by their share of the row, so that classes of any size are comparable.
    """
    font = ImageFont.load_default(FONT)
    names = math.ceil(max(font.getlength(name) for name in result.classes)) + LEAD // 2
    # Names that are wider than their column are vertical.
    upright = names > CELL
    left, above = MARGIN + LEAD + names, MARGIN + 3 * LEAD + (names if upright else LEAD)
    size = CELL * len(result.classes)
    edge = CELL + LEAD  # for "100.0 %"
    heading = [title, f"accuracy {accuracy_text(result)}"]
    width = left + size + edge + MARGIN
    width = max(width, *(math.ceil(font.getlength(line)) + 2 * MARGIN for line in heading))
    picture = Image.new("RGB", (width, above + size + LEAD + MARGIN), WHITE)
    pen = ImageDraw.Draw(picture)
    for i, line in enumerate(heading):
        pen.text((MARGIN, MARGIN + i * LEAD), line, INK if i == 0 else PALE, font)
    _draw_cells(pen, result, left, above, font)
    _draw_edges(pen, result, left, above, font)
    for i, name in enumerate(result.classes):
        middle = i * CELL + CELL // 2
        pen.text((left - LEAD // 4, above + middle), name, INK, font, anchor="rm")
        if upright:
            _draw_upright(picture, name, left + middle, above - LEAD // 4, font)
        else:
            pen.text((left + middle, above - LEAD // 4), name, INK, font, anchor="ms")
    top = MARGIN + 2 * LEAD + LEAD // 2
    pen.text((left + size // 2, top), "predicted", PALE, font, anchor="mt")
    _draw_upright(picture, "true", MARGIN + FONT // 2, above + size // 2, font, "mm")
    return picture


def _draw_cells(
    pen: ImageDraw.ImageDraw,
    result: Confusion,
    left: int,
    above: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for i, row in enumerate(result.counts):
        for j, count in enumerate(row):
            x, y = left + j * CELL, above + i * CELL
            share = count / sum(row) if count else 0.0
            darkness = share if i == j else min(1.0, share / DARKEST_MISS)
            colour = _mixed(HIT if i == j else MISS, darkness) if count else WHITE
            pen.rectangle((x, y, x + CELL, y + CELL), colour, GRID, 2)
            if count:
                ink = WHITE if darkness > 0.5 else INK
                pen.text((x + CELL // 2, y + CELL // 2), str(count), ink, font, anchor="mm")


def _mixed(colour: Colour, share: float) -> Colour:
    """From nearly white to the full colour; a single confusion is distinct from none."""
    share = 0.15 + 0.85 * share
    red, green, blue = (round(255 + share * (channel - 255)) for channel in colour)
    return red, green, blue


def _draw_edges(
    pen: ImageDraw.ImageDraw,
    result: Confusion,
    left: int,
    above: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    size = CELL * len(result.classes)
    small = ImageFont.load_default(FONT * 4 // 5)
    for i, row in enumerate(result.by_class):
        middle = i * CELL + CELL // 2
        pen.text((left + size + 12, above + middle), _percent(row.recall), PALE, small, anchor="lm")
        pen.text(
            (left + middle, above + size + 12), _percent(row.precision), PALE, small, anchor="mt"
        )
    pen.text((left + size + 12, above - LEAD // 4), "recall", PALE, small, anchor="ls")
    pen.text((left - LEAD // 4, above + size + 12), "precision", PALE, small, anchor="rt")


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %" if math.isfinite(rate) else "n/a"


def _draw_upright(
    picture: Image.Image,
    text: str,
    x: int,
    y: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    anchor: str = "mb",
) -> None:
    """Vertical text: its middle at x, and its start (mb) or its middle (mm) at y."""
    length = math.ceil(font.getlength(text))
    label = Image.new("L", (length, 2 * FONT), 0)
    ImageDraw.Draw(label).text((0, FONT), text, 255, font, anchor="lm")
    label = label.rotate(90, expand=True)
    top = y - (length if anchor == "mb" else length // 2)
    picture.paste(PALE if anchor == "mm" else INK, (x - FONT, top), label)
