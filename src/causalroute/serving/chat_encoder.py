"""A multimodal LLM on a handful of inputs: what `encoder.Encoder` is for models that read each side alone.

Letters: M inputs, D width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from causalroute.features.window import Window
from causalroute.serving.encoder import Encoder, rounded


class ChatEncoder(Encoder):
    """A backbone of kind mllm. It scores no answers and writes no replies here: it is read.

    Raises:
        UserError: the backbone cannot be loaded, or is another one.
    """

    @property
    def window(self) -> Window:
        """The whole image: such a model crops nothing, and no editor looks through it."""
        return (0.0, 0.0, 1.0, 1.0)

    @property
    def longest(self) -> int:
        """Tokens of a text that are read."""
        longest: int = self.backbone.longest
        return longest

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Features (M, 2D) of M texts, float32, and which of them were cut."""
        return rounded(self.backbone.pooled([(text, None) for text in texts])), [self.backbone.shortens(text) for text in texts]

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Features (M, 2D) of M RGB images, float32."""
        return rounded(self.backbone.pooled([(None, image) for image in images]))

    def pairs(self, texts: Sequence[str], images: Sequence[Image.Image]) -> Tensor | None:
        """Joint features (M, 2D) of M texts with their images, float32."""
        return rounded(self.backbone.pooled(list(zip(texts, images, strict=True))))
