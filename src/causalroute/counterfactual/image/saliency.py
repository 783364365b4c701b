"""Core masks found by gradient x input: which pixels does the backbone's answer to *this* text hang on?

    s(p) = sum over channels of |x_p d(u . h(x)) / d x_p|

h(x) is the image feature, u one direction per post:

- dual encoder: u = the post's own core text (t_c) in the shared space and h(x) the image in it, so s explains their similarity;
- encoder pair: there is no shared space. A small vanilla fusion head f is trained on factual features of the train split; u is the gradient, with respect
  to the image feature, of the interaction f(t, v) - f(t*, v) of the predicted class, t* the mean text: what the image adds *to this text* (the mediator),
  not what it says alone (the shortcut).

Maps are computed on the image squeezed to a square, so that one grid serves every aspect ratio; the part of it that the backbone's own preprocessing
crops away gets no saliency. No truth and no label of a test split is used. Letters: M posts, m mask cells per side, Dv feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from causalroute.counterfactual.image.refine import core_masks
from causalroute.counterfactual.posts import Posts
from causalroute.features.backbone import Backbone
from causalroute.rng import torch_generator

SQUARE = 256
"""Largest side in pixels of the squeezed image that a backbone's preprocessing gets."""
HIDDEN, STEPS, BATCH, RATE, DECAY = 64, 600, 128, 3e-3, 1e-2
"""Fusion head: units, steps, posts per step, AdamW learning rate and weight decay."""

Directions = torch.Tensor
Encode = Callable[[torch.Tensor], torch.Tensor]


def find_cores(
    backbone: Backbone, images: Callable[[int], Image.Image], directions: Directions, encode: Encode, share: float, side: int, threads: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Core masks and thumbnails of M images.

    Args:
        backbone: prepares the pixels.
        images: row -> RGB image.
        directions: (M, D) u of each post.
        encode: pixels (B, 3, H, W) -> (B, D), differentiable.
        share: rho of `refine.core_masks`.
        side: m.
        threads: batches worked on at a time; changes no bit of the result.

    Returns:
        (M, m, m) True = core, and (M, m, m, 3) the images at this size.
    """
    window = crop_window(backbone)

    def work(rows: range) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        squares = [squeeze(images(row)) for row in rows]
        pixels = torch.stack([backbone.preprocess(square) for square in squares])
        heat = place(gradient_times_input(encode, pixels, directions[list(rows)]), window, side)
        thumbnails = np.stack([np.asarray(square.resize((side, side), Image.Resampling.BOX)) for square in squares])
        return core_masks(heat, thumbnails, share), thumbnails

    with ThreadPoolExecutor(threads) as pool:
        masks, small = zip(*pool.map(work, _batches(len(directions), backbone.batch_size)), strict=True)
    return np.concatenate(masks), np.concatenate(small)


def squeeze(image: Image.Image) -> Image.Image:
    """The whole image as a square of its longer side, at most SQUARE."""
    side = min(max(image.size), SQUARE)
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)


def _batches(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


def gradient_times_input(encode: Encode, pixels: torch.Tensor, directions: Directions) -> torch.Tensor:
    """s(p) of the module equation: (B, H, W)."""
    pixels = pixels.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((encode(pixels) * directions).sum(), pixels)
    return (gradient * pixels.detach()).abs().sum(1)


def crop_window(backbone: Backbone) -> tuple[float, float, float, float]:
    """Part (x0, y0, x1, y1) of a square image that reaches the model, as fractions; read off a colour ramp sent through the preprocessing."""
    at = np.broadcast_to(np.arange(SQUARE, dtype=np.uint8), (SQUARE, SQUARE))
    ramp = Image.fromarray(np.stack([at, at.T, np.zeros_like(at)], axis=-1))
    black, white, seen = (
        backbone.preprocess(image) for image in (Image.new("RGB", (SQUARE, SQUARE)), Image.new("RGB", (SQUARE, SQUARE), (255, 255, 255)), ramp)
    )
    value = ((seen - black) / (white - black)).numpy() * 255 / SQUARE  # (3, H, W): channel 0 holds x, channel 1 holds y, in [0, 1)
    middle_y, middle_x = value.shape[1] // 2, value.shape[2] // 2
    return float(value[0, middle_y, 0]), float(value[1, 0, middle_x]), float(value[0, middle_y, -1]), float(value[1, -1, middle_x])


def place(heat: torch.Tensor, window: tuple[float, float, float, float], side: int) -> NDArray[np.float64]:
    """Mean heat (B, H, W) per cell of the whole square, zero outside `window`: (B, side, side)."""
    x0, y0, x1, y1 = (round(edge * side) for edge in window)
    inner = torch.nn.functional.adaptive_avg_pool2d(heat[:, None], (max(1, y1 - y0), max(1, x1 - x0)))[:, 0]
    full = torch.zeros(len(heat), side, side)
    full[:, y0 : y0 + inner.shape[1], x0 : x0 + inner.shape[2]] = inner
    return full.numpy().astype(np.float64)


def text_directions(backbone: Any, texts: Sequence[str]) -> Directions:
    """Core texts of M posts in the shared space of a dual encoder: (M, D)."""
    encoded = backbone.tokenize_many(texts)
    order = sorted(range(len(texts)), key=lambda row: len(encoded[row].ids))
    found: list[torch.Tensor | None] = [None] * len(texts)
    with torch.no_grad():
        for rows in _buckets(order, encoded, backbone.batch_size):
            for row, vector in zip(rows, backbone.project_text(*backbone.collate([encoded[row] for row in rows])), strict=True):
                found[row] = vector
    return torch.stack([vector for vector in found if vector is not None])


def _buckets(order: list[int], encoded: Sequence[Any], size: int) -> Iterator[list[int]]:
    """Rows in batches that share a length bucket."""
    batch: list[int] = []
    for row in order:
        if batch and (len(batch) == size or encoded[row].bucket != encoded[batch[0]].bucket):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def interaction_directions(posts: Posts, text: torch.Tensor, image: torch.Tensor, seed: int) -> Directions:
    """Gradients of the interaction with respect to the image feature: (M, Dv).

    Args:
        posts: M posts; labels of the train split are read, no others.
        text: (M, Dt) factual text features.
        image: (M, Dv) factual image features.
        seed: of the fusion head.
    """
    train = torch.from_numpy(np.flatnonzero(posts.train))
    text, _ = _standard(text.float(), train)
    image, scale = _standard(image.float(), train)
    labels = torch.tensor(posts.labels)
    head = _fusion_head(text, image, labels, train, posts.classes, seed)
    probe = image.clone().requires_grad_(True)
    score = head(torch.cat([text, probe], 1))
    chosen = score.argmax(1, keepdim=True)
    without = head(torch.cat([torch.zeros_like(text), probe], 1))  # features are centred: 0 is t*
    (gradient,) = torch.autograd.grad((score - without).gather(1, chosen).sum(), probe)
    return gradient / scale


def _standard(features: torch.Tensor, train: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, scale = features[train].mean(0), features[train].std(0) + 1e-6
    return (features - mean) / scale, scale


def _fusion_head(text: torch.Tensor, image: torch.Tensor, labels: torch.Tensor, train: torch.Tensor, classes: int, seed: int) -> torch.nn.Module:
    """One hidden layer over the concatenation (products are not needed), trained on the train split."""
    source = torch_generator(seed, "fusion head")
    head = torch.nn.Sequential(torch.nn.Linear(text.shape[1] + image.shape[1], HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, classes))
    for weight in head.parameters():
        bound = 1 / (weight.shape[-1] ** 0.5)
        torch.nn.init.uniform_(weight, -bound, bound, generator=source)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    inputs = torch.cat([text, image], 1)
    for _ in range(STEPS):
        rows = train[torch.randint(len(train), (BATCH,), generator=source)]
        loss = torch.nn.functional.cross_entropy(head(inputs[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.requires_grad_(False)
