"""Prepares, opens, augments and batches datasets."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".augmentation": "Augmentation",
        ".datasets": "ArrayDataset Dataset Example",
        ".descriptors": "Bands Descriptor read_class_names",
        ".folds": "duplicated",
        ".crops": "MEAN_PIXEL",
        ".pipeline": "Batch evaluation_batches evaluation_order training_batches",
        ".prepared": "open_dataset prepared_directory prepared_names",
    },
)
