"""The input pipeline beside torchvision's: the same examples, and what is told."""

import importlib.util

import numpy as np
import pytest
from stand_ins import random_dataset

from deeplab_jax.benchmark import pipeline
from deeplab_jax.data import Augmentation
from deeplab_jax.data.codecs import decode_image, decode_label, encode_jpeg, encode_png
from deeplab_jax.errors import DeepLabError
from experiments.benchmarks import torchvision_data

# Not imported: a torchvision built for another torch can only be imported as the baselines do.
INSTALLED = all(map(importlib.util.find_spec, ("torch", "torchvision")))
AUGMENTATION = Augmentation((49, 65), scale_step=0.25)


class EncodedDataset:
    """Random images that are kept as JPEG and PNG."""

    def __init__(self, count: int) -> None:
        made = random_dataset([(40 + number, 60) for number in range(count)])
        self._stored = [
            (encode_jpeg(made[index]["image"]), encode_png(made[index]["label"]))
            for index in range(count)
        ]

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> dict[str, object]:
        image, label = self._stored[index]
        return {"image": decode_image(image), "label": decode_label(label), "image_id": str(index)}

    def encoded(self, index: int) -> tuple[bytes, bytes]:
        return self._stored[index]


def test_files_hold_what_the_records_hold(tmp_path):
    dataset = EncodedDataset(3)
    files = torchvision_data.write_files(dataset, 2, tmp_path)
    found = [tuple(file.read_bytes() for file in pair) for pair in files]
    assert found == [dataset.encoded(0), dataset.encoded(1)]


@pytest.mark.skipif(INSTALLED, reason="torchvision is installed")
def test_missing_packages_are_reported():
    with pytest.raises(DeepLabError, match="pip install"):
        torchvision_data.measure_pipeline(
            EncodedDataset(1), AUGMENTATION, num_images=1, repetitions=1
        )


@pytest.mark.skipif(not INSTALLED, reason="torchvision is not installed")
def test_both_sides_make_the_same_kind_of_crops(tmp_path):
    dataset = EncodedDataset(20)
    files = torchvision_data.write_files(dataset, 20, tmp_path)
    theirs = list(torchvision_data.make_batches(files, AUGMENTATION, 16)())
    ours = list(pipeline.crop_batches(dataset, AUGMENTATION, 20))
    for mine, (image, label) in zip(ours, theirs, strict=True):
        assert mine["image"].shape == tuple(np.array(image.shape)[[0, 2, 3, 1]])
        assert mine["label"].shape == tuple(label.shape)
        assert {str(image.dtype), str(label.dtype)} == {"torch.uint8"}
        assert set(np.unique(label.numpy())) <= {0, 1, 2, 3, 255}
    figures = torchvision_data.measure_pipeline(dataset, AUGMENTATION, num_images=20, repetitions=2)
    assert figures["ratio"] > 0
    assert figures["images"] == 20
