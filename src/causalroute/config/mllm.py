"""Sections that say how a multimodal language model is asked."""

from __future__ import annotations

from typing import Literal

from causalroute.parsing import section


@section
class Prompt:
    """One way to put the task to a multimodal LLM."""

    question: str
    """what is asked of each post, behind its image and its text"""
    answers: dict[str, str]
    """class -> the words of the reply that stand for it, such as {literal: "no", sarcastic: "yes"}"""
    text: str = 'Text of the post: "{text}"'
    """how the post's text is quoted, with {text} once; left out where a view has no text"""

    def __post_init__(self) -> None:
        if self.text.count("{text}") != 1:
            raise ValueError(f"text must hold {{text}} exactly once, found {self.text!r}")
        if not self.question.strip():
            raise ValueError("question is empty")
        if len(set(self.answers.values())) < max(len(self.answers), 2) or not all(words.strip() for words in self.answers.values()):
            raise ValueError("answers must name different words for at least two classes")


@section
class Mllm:
    """A multimodal large language model as backbone (docs/mllm.md)."""

    prompts: tuple[Prompt, ...]
    """ways to ask; features are made with the first, zero-shot rows may use every one"""
    layer: int = -1
    """hidden layer that features are read from: -1 is the last one, normalised as the model does; others as hidden_states of transformers count them"""
    image_side: int = 448
    """longest side in pixels that an image is scaled down to before the model's own preprocessing: it decides the number of image tokens; 0: none"""
    tiles: bool = False
    """cut large images into tiles, where the model's processor can leave it (InternVL, SmolVLM, Idefics3, Llama 3.2 Vision): several times the image tokens"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """arithmetic of the passes; bfloat16 is for GPUs"""
    quantize: Literal["none", "4bit", "8bit"] = "none"
    """weights held in fewer bits (bitsandbytes, CUDA alone)"""
    device: str = "auto"
    """auto: a GPU where there is one; cpu, cuda, cuda:1; "spread": over all GPUs, by accelerate"""
    zero_shot: bool = True
    """score the answers of every prompt as well: the rows zero_shot need it"""
    shots: int = 0
    """train posts shown with their answers before the question, the same for every post: answers are few-shot ones then; features never see them"""
    shots_seed: int = 0
    """seed of the draw of these posts"""
    generate: int = 0
    """tokens of a reply to the first prompt that the model writes itself about posts of valid and test splits: the row zero_shot_generated needs it; 0: none"""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("an mllm needs at least one prompt")
        if self.image_side < 0:
            raise ValueError("image_side must be at least 0")
        if self.shots < 0 or self.generate < 0:
            raise ValueError("shots and generate must be at least 0")
        if self.generate and len({words.strip().casefold() for words in self.prompts[0].answers.values()}) < len(self.prompts[0].answers):
            raise ValueError("replies are read in any case: the answers of the first prompt must differ in more than that")
        if self.shots and not (self.zero_shot or self.generate):
            raise ValueError("shots change nothing without zero_shot or generate: features do not see them")
        if len({frozenset(prompt.answers) for prompt in self.prompts}) > 1:
            raise ValueError("all prompts must name answers for the same classes")
