"""Which part of an image reaches a model: preprocessing may crop, and says so nowhere that could be relied on.

A colour ramp is sent through it, red = x and green = y, and the colours that come out at the edges are where the edges lie.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from causalroute.features.backbone import Backbone

Window = tuple[float, float, float, float]
"""(x0, y0, x1, y1), fractions of width and height"""


def crop_window(backbone: Backbone, size: tuple[int, int]) -> Window:
    """Part (x0, y0, x1, y1) of an image of `size` = (width, height) that reaches the model, as fractions; read off a colour ramp sent through the
    preprocessing. Only the shape of `size` matters."""
    width, height = size
    across = np.broadcast_to((np.arange(width) * 256 // width).astype(np.uint8), (height, width))
    down = np.broadcast_to((np.arange(height) * 256 // height).astype(np.uint8)[:, None], (height, width))
    ramp = Image.fromarray(np.stack([across, down, np.zeros_like(across)], axis=-1))
    black, white, seen = (backbone.preprocess(image) for image in (Image.new("RGB", size), Image.new("RGB", size, (255, 255, 255)), ramp))
    value = ((seen - black) / (white - black)).numpy() * 255 / 256  # (3, H, W): channel 0 holds x, channel 1 holds y, in [0, 1)
    middle_y, middle_x = value.shape[1] // 2, value.shape[2] // 2
    return float(value[0, middle_y, 0]), float(value[1, 0, middle_x]), float(value[0, middle_y, -1]), float(value[1, -1, middle_x])
