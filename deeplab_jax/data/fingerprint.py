"""Fingerprint of a data set: what a resumed run compares with what it began with."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from deeplab_jax.data.datasets import Dataset, array_content

# Examples that are read in full where reading all of them would take minutes.
SAMPLED = 64


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Returns values that are equal for equal data sets, wherever they are stored.

    Args:
      dataset: of any kind. Its method `content`, which yields bytes, identifies its examples; a
        data set without one is identified by `SAMPLED` decoded examples, evenly spaced.

    Returns:
      JSON-ready `name`, `split`, `num_images`, `class_names` and `content`, a hexadecimal digest.
    """
    own = getattr(dataset, "content", None)
    digest = hashlib.blake2b(digest_size=16)
    for part in _decoded(dataset) if own is None else own():
        # With its length, so that bytes cannot move from one part to the next.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return {
        "name": dataset.name,
        "split": dataset.split,
        "num_images": len(dataset),
        "class_names": list(dataset.descriptor.class_names),
        "content": digest.hexdigest(),
    }


def sampled_positions(length: int) -> list[int]:
    """Returns at most `SAMPLED` evenly spaced positions below a length, first and last included."""
    spaced = np.linspace(0, length - 1, min(length, SAMPLED))
    return spaced.round().astype(int).tolist()


def _decoded(dataset: Dataset) -> Iterator[bytes]:
    for position in sampled_positions(len(dataset)):
        example = dataset[position]
        yield str(example["image_id"]).encode()
        yield from array_content(example["image"], example["label"])


def fingerprint_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns "field: a → b" for every field in which two fingerprints differ."""
    fields = [name for name in now if name in before and before[name] != now[name]]
    # A digest explains nothing that a length or a name does not.
    named = [name for name in fields if name != "content"] or fields
    return [_difference(name, before[name], now[name]) for name in named]


def _difference(field: str, before: Any, now: Any) -> str:
    if field == "content":
        return "content: images or labels differ"
    if field == "class_names" and len(before) == len(now):
        pairs = zip(before, now, strict=True)
        changed = [f"{old} → {new}" for old, new in pairs if old != new]
        return f"class_names: {', '.join(changed[:5])}"
    return f"{field}: {before} → {now}"
