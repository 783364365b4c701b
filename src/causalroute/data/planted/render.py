"""Images of the planted benchmark: a smiling or frowning face (core b) on a striped background of one colour family (cue).

A `Scene` holds everything that is drawn, so that one thing can be changed and the rest stays: the same face on another background,
or the background without the face. Lengths are in pixels of the final image.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

SIZE = 64
"""Pixels per side."""
SCALE = 2
"""Supersampling."""
RADIUS = (14.0, 20.0)
"""Range of face radii, pixels."""
FAMILIES: tuple[tuple[float, float], ...] = ((0.0, 0.13), (0.52, 0.72), (0.24, 0.40))
"""Hue ranges (turns) of the background families warm, cool and green: family c is the cue of class c."""
FAMILY_NAMES = ("warm", "cool", "green")
"""Words for the families."""
SKINS: dict[str, tuple[int, int, int]] = {
    "pale": (250, 226, 204),
    "tan": (222, 178, 138),
    "brown": (150, 104, 76),
    "dark": (104, 72, 56),
    "white": (244, 244, 240),
    "grey": (176, 176, 180),
}
"""Face colours by name."""
FRAME = 4
"""Width of a frame, pixels."""
FRAMES: tuple[tuple[Colour, Colour], ...] = (
    ((16, 16, 16), (16, 16, 16)),
    ((240, 240, 240), (240, 240, 240)),
    ((176, 40, 208), (176, 40, 208)),
    ((16, 16, 16), (240, 240, 240)),
)
"""Frames by style: two colours that take turns along the edge; no background family has any of them."""
DASH = 8
"""Length of a dash, pixels."""
TRACE = 2
"""Grey levels (of 255) by which the blur of a face may show outside its box."""


@dataclass(frozen=True)
class Style:
    """How hard faces are to read."""

    shown: float
    """probability that a hint (brows; cheeks or tears) is drawn"""
    wrong: float
    """probability that a drawn hint is of the other polarity (tears of joy)"""
    intensity: tuple[float, float]
    """range of the mouth's curvature, 1 the strongest"""
    occluded: float
    """probability that a grey disc covers part of the face"""
    blur: tuple[float, float]
    """range of the blur radius, pixels"""


CLEAN = Style(shown=1.0, wrong=0.0, intensity=(0.6, 1.0), occluded=0.0, blur=(0.0, 0.5))
"""Faces that the backbone is trained on."""
POSTS = Style(shown=1.0, wrong=0.03, intensity=(0.6, 1.0), occluded=0.15, blur=(0.0, 0.5))
"""Faces of the benchmark: calibrated, see docs/planted.md."""


@dataclass(frozen=True)
class Background:
    """Stripes: two colours, a direction (radians), a period and a phase (pixels)."""

    family: int
    colours: tuple[Colour, Colour]
    angle: float
    period: float
    phase: float


@dataclass(frozen=True)
class Face:
    """A face: centre, radius and colour, its polarity, the mouth's curvature and filling, and hints with their polarity (0: not shown)."""

    x: float
    y: float
    radius: float
    skin: str
    polarity: int
    intensity: float
    open_mouth: bool
    brows: int
    marks: int
    occluder: tuple[float, float, float, Colour] | None


@dataclass(frozen=True)
class Scene:
    """One image."""

    face: Face
    background: Background
    blur: float
    frame: int | None = None
    """style of the frame; None: there is none"""

    @property
    def box(self) -> Box:
        """The face's box (x0, y0, x1, y1), half open, in pixels; outside it the face shows by at most TRACE grey levels."""
        face, margin = self.face, 1.0 + 2 * self.blur
        low = (math.floor(face.x - face.radius - margin), math.floor(face.y - face.radius - margin))
        high = (math.ceil(face.x + face.radius + margin), math.ceil(face.y + face.radius + margin))
        return (max(low[0], 0), max(low[1], 0), min(high[0], SIZE), min(high[1], SIZE))


def draw_background(rng: np.random.Generator, family: int) -> Background:
    """A random background of the family."""
    low, high = FAMILIES[family]
    colours = [_rgb(rng.uniform(low, high), rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.95)) for _ in range(2)]
    return Background(family, (colours[0], colours[1]), float(rng.uniform(0, math.pi)), float(rng.uniform(6, 16)), float(rng.uniform(0, 16)))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_face(rng: np.random.Generator, polarity: int, style: Style) -> Face:
    """A random face of the polarity."""
    radius = float(rng.uniform(*RADIUS))
    x, y = (float(v) for v in rng.uniform(radius + 1, SIZE - radius - 1, size=2))
    brows, marks = (_hint(rng, polarity, style) for _ in range(2))
    return Face(
        x=x, y=y, radius=radius, skin=list(SKINS)[int(rng.integers(len(SKINS)))], polarity=polarity, intensity=float(rng.uniform(*style.intensity)),
        open_mouth=bool(rng.random() < 0.5), brows=brows, marks=marks, occluder=_occluder(rng) if rng.random() < style.occluded else None,
    )  # fmt: skip


def _hint(rng: np.random.Generator, polarity: int, style: Style) -> int:
    shown, wrong = rng.random(2)
    return 0 if shown >= style.shown else -polarity if wrong < style.wrong else polarity


def _occluder(rng: np.random.Generator) -> tuple[float, float, float, Colour]:
    """A disc: direction (radians), distance from the centre and size in face radii, colour."""
    shade = int(rng.integers(60, 200))
    return float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.25, 0.4)), (shade, shade, shade)


def draw_scene(rng: np.random.Generator, polarity: int, family: int, style: Style) -> Scene:
    """A random scene with a face of the polarity on a background of the family."""
    return Scene(draw_face(rng, polarity, style), draw_background(rng, family), float(rng.uniform(*style.blur)))


def render(scene: Scene, face: bool = True) -> Image.Image:
    """The image (SIZE x SIZE, RGB), on request without the face."""
    image = Image.fromarray(stripes(scene.background))
    if face:
        _paint(ImageDraw.Draw(image), scene.face)
    image = image.reduce(SCALE)
    image = image.filter(ImageFilter.GaussianBlur(scene.blur)) if scene.blur > 0.1 else image
    return image if scene.frame is None else framed(image, scene.frame)


def framed(image: Image.Image, style: int) -> Image.Image:
    """The image in a frame of the style."""
    pixels = np.array(image)
    steps = np.arange(SIZE)
    edge = np.minimum(steps, SIZE - 1 - steps) < FRAME
    inside = edge[:, None] | edge[None, :]
    dash = (steps[:, None] // DASH + steps[None, :] // DASH) % 2
    pixels[inside] = np.array(FRAMES[style], dtype=np.uint8)[dash[inside]]
    return Image.fromarray(pixels)


def stripes(background: Background) -> np.ndarray:
    """Supersampled stripes, uint8 (SIZE * SCALE, SIZE * SCALE, 3)."""
    steps = (np.arange(SIZE * SCALE, dtype=np.float64) + 0.5) / SCALE
    along = steps[None, :] * math.cos(background.angle) + steps[:, None] * math.sin(background.angle)
    second = (np.floor((along + background.phase) / (background.period / 2)) % 2).astype(np.int64)
    return np.array(background.colours, dtype=np.uint8)[second]


def _paint(draw: ImageDraw.ImageDraw, face: Face) -> None:
    radius = face.radius * SCALE
    skin = SKINS[face.skin]
    dark = (30, 24, 24)

    def at(x: float, y: float, rx: float, ry: float) -> Box:
        cx, cy = face.x * SCALE + x * radius, face.y * SCALE + y * radius
        return (cx - rx * radius, cy - ry * radius, cx + rx * radius, cy + ry * radius)

    draw.ellipse(at(0, 0, 1, 1), fill=skin, outline=dark, width=SCALE)
    for side in (-1, 1):
        draw.ellipse(at(0.36 * side, -0.22, 0.12, 0.15), fill=dark)
        if face.brows:
            inner, outer = (-0.42, -0.62) if face.brows < 0 else (-0.66, -0.5)
            (x0, y0, _, _), (x1, y1, _, _) = at(0.16 * side, inner, 0, 0), at(0.62 * side, outer, 0, 0)
            draw.line((x0, y0, x1, y1), fill=dark, width=2 * SCALE)
        if face.marks > 0:
            draw.ellipse(at(0.56 * side, 0.2, 0.28, 0.24), fill=(240, 110, 130))
        elif face.marks < 0:
            draw.ellipse(at(0.44 * side, 0.26, 0.18, 0.36), fill=(70, 150, 250))
    _mouth(draw, face, at)
    if face.occluder:
        angle, distance, size, colour = face.occluder
        draw.ellipse(at(distance * math.cos(angle), distance * math.sin(angle), size, size), fill=colour)


def _mouth(draw: ImageDraw.ImageDraw, face: Face, at: object) -> None:
    """A parabola of depth `intensity`, filled where the mouth is open."""
    xs = np.linspace(-0.5, 0.5, 9)
    bend = 0.34 * face.intensity * face.polarity
    points = [at(x, 0.44 + bend * (0.5 - 4 * x * x), 0, 0)[:2] for x in xs]  # type: ignore[operator]
    if face.open_mouth:
        draw.polygon(points, fill=(150, 30, 40))
    draw.line(points, fill=(120, 16, 30), width=2 * SCALE, joint="curve")
