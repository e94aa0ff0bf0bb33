"""Batches of small Hugging Face models: a loader of dictionaries, as their tokenizers and processors give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from lottery.data import Data

VOCABULARY, LENGTH, CLASSES, IMAGE = 64, 12, 3, 32
BATCH, TRAIN, VALIDATION = 4, 16, 8

Example = dict[str, Any]
Draw = Callable[[torch.Generator], Example]


def _tokens(draw: torch.Generator, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(4, VOCABULARY, (length,), generator=draw)


def text(draw: torch.Generator) -> Example:
    """Token ids of a sentence that is padded on the right."""
    ids, words = _tokens(draw), int(torch.randint(LENGTH // 2, LENGTH + 1, (), generator=draw))
    keep = (torch.arange(LENGTH) < words).long()
    return {"input_ids": ids * keep + (1 - keep), "attention_mask": keep}


def causal(draw: torch.Generator) -> Example:
    """For language models: the labels are the tokens, but for the padding."""
    given = text(draw)
    return {**given, "labels": given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)}


def plain_causal(draw: torch.Generator) -> Example:
    """The same of one length, without a mask."""
    ids = _tokens(draw)
    return {"input_ids": ids, "labels": ids.clone()}


def classified_text(draw: torch.Generator) -> Example:
    """For sequence classification."""
    return {**text(draw), "labels": torch.randint(CLASSES, (), generator=draw)}


def spans(draw: torch.Generator) -> Example:
    """For question answering."""
    start = torch.randint(0, LENGTH // 2, (), generator=draw)
    return {**text(draw), "start_positions": start, "end_positions": start + 1}


def choices(draw: torch.Generator) -> Example:
    """For multiple choice."""
    pair = [text(draw) for _ in range(2)]
    ids, mask = (torch.stack([each[key] for each in pair]) for key in ("input_ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(2, (), generator=draw)}


def translated(draw: torch.Generator) -> Example:
    """For encoder-decoder models."""
    return {**text(draw), "labels": _tokens(draw, LENGTH // 2)}


def image(draw: torch.Generator) -> Example:
    """For image classification."""
    return {
        "pixel_values": torch.randn(3, IMAGE, IMAGE, generator=draw),
        "labels": torch.randint(CLASSES, (), generator=draw),
    }


def segmented(draw: torch.Generator) -> Example:
    """For semantic segmentation."""
    return {**image(draw), "labels": torch.randint(CLASSES, (IMAGE, IMAGE), generator=draw)}


def picture(draw: torch.Generator) -> Example:
    """An image whose own reconstruction is learned."""
    return {"pixel_values": torch.randn(3, IMAGE, IMAGE, generator=draw)}


def captioned(draw: torch.Generator) -> Example:
    """For pairs of images and texts."""
    return {**text(draw), **picture(draw)}


def contrasted(draw: torch.Generator) -> Example:
    """The same for models that must be asked for their loss."""
    return {**captioned(draw), "return_loss": True}


def shown_text(draw: torch.Generator) -> Example:
    """A language model's text that begins with four image tokens (id 3)."""
    ids = torch.cat([torch.full((4,), 3), _tokens(draw, LENGTH - 4)])
    mask = torch.ones(LENGTH, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(ids == 3, -100), **picture(draw)}


def video(draw: torch.Generator) -> Example:
    """For video classification."""
    return {
        "pixel_values": torch.randn(4, 3, IMAGE, IMAGE, generator=draw),
        "labels": torch.randint(CLASSES, (), generator=draw),
    }


def waveform(draw: torch.Generator) -> Example:
    """For audio classification."""
    return {"input_values": torch.randn(800, generator=draw), "labels": torch.randint(CLASSES, (), generator=draw)}


def spoken(draw: torch.Generator) -> Example:
    """For speech recognition with CTC."""
    return {"input_values": torch.randn(800, generator=draw), "labels": _tokens(draw, 3)}


def spectrogram(draw: torch.Generator) -> Example:
    """For speech encoder-decoders."""
    return {"input_features": torch.randn(16, 40, generator=draw), "labels": _tokens(draw, LENGTH // 2)}


def classified_spectrogram(draw: torch.Generator) -> Example:
    """For audio spectrogram classification."""
    return {
        "input_values": torch.randn(40, 16, generator=draw),
        "labels": torch.randint(CLASSES, (), generator=draw),
    }


def series(draw: torch.Generator) -> Example:
    """For forecasting of channels."""
    return {
        "past_values": torch.randn(32, 2, generator=draw),
        "future_values": torch.randn(8, 2, generator=draw),
    }


def collate(examples: list[Example]) -> Mapping[str, Any]:
    """Return a batch: tensors are stacked, switches of the model stay as they are."""
    first = examples[0]
    batch = default_collate([{key: value for key, value in each.items() if value is not True} for each in examples])
    return {**batch, **{key: value for key, value in first.items() if value is True}}


def loaders(draw: Draw) -> Data:
    """Return a training and a validation loader of such examples."""
    generator = torch.Generator().manual_seed(1)
    examples = [draw(generator) for _ in range(TRAIN + VALIDATION)]
    train = DataLoader(examples[:TRAIN], BATCH, shuffle=True, collate_fn=collate)  # pyright: ignore[reportArgumentType]
    validation = DataLoader(examples[TRAIN:], BATCH, collate_fn=collate)  # pyright: ignore[reportArgumentType]
    return Data(train, validation)
