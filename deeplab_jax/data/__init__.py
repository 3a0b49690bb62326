"""Data sets: preparing, opening, augmenting and batching them."""

from deeplab_jax.data.augmentation import Augmentation
from deeplab_jax.data.datasets import ArrayDataset, Dataset, Example
from deeplab_jax.data.descriptors import Descriptor
from deeplab_jax.data.folds import duplicated
from deeplab_jax.data.padding import MEAN_PIXEL
from deeplab_jax.data.pipeline import (
    Batch,
    evaluation_batches,
    evaluation_order,
    training_batches,
)
from deeplab_jax.data.prepared import open_dataset, prepared_names

__all__ = [
    "MEAN_PIXEL",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "Dataset",
    "Descriptor",
    "Example",
    "duplicated",
    "evaluation_batches",
    "evaluation_order",
    "open_dataset",
    "prepared_names",
    "training_batches",
]
