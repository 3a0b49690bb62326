"""Small models for tests: exact replacements, and a real one in a workdir."""

import functools
import pathlib
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn

from deeplab_jax.checkpointing import ModelDescription, open_checkpoints, write_description
from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.inference import Prediction, Predictor
from deeplab_jax.models import Architecture

NUM_CLASSES = 4


def noise(*shape: int) -> np.ndarray:
    """Returns an image, or a batch of them, of noise: uint8 [*shape, 3]."""
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


class RedReader(nn.Module):
    """Gives each pixel the class `red modulo 4`, with a probability that increases with green."""

    architecture: Architecture = Architecture("mobilenet_v2", num_classes=NUM_CLASSES)
    # There is nothing to fold.
    kind: str = "folded"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        odds = (image[..., 1:2].astype(jnp.float32) + 1) / 64
        return odds * jax.nn.one_hot(image[..., 0] % NUM_CLASSES, NUM_CLASSES)

    def class_map_and_logits(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = self(image)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), logits


class SizeReader(RedReader):
    """Gives every pixel the class `height of the padded image / 16 modulo 4`."""

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        red = jnp.full(image.shape[:3], image.shape[1] // 16 % NUM_CLASSES)
        return jax.nn.one_hot(red, NUM_CLASSES)


class Convolution(RedReader):
    """Computes classes by one convolution, whose rounding could depend on the batch layout."""

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        return nn.Conv(NUM_CLASSES, (5, 5))(image.astype(jnp.float32) / 255)


def random_dataset(
    sizes: Sequence[tuple[int, int]], seed: int = 0, void: float = 0.2
) -> ArrayDataset:
    """Returns noise images; the truth is often the prediction of `RedReader`, and partly void."""
    random = np.random.default_rng(seed)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    labels = []
    for image in images:
        label = np.where(random.random(image.shape[:2]) < 0.6, image[..., 0] % 4, 1)
        labels.append(np.where(random.random(label.shape) < void, 255, label).astype(np.uint8))
    return ArrayDataset(images, labels, ["sky", "tree", "road", "car"])


def red_predictor(dataset: ArrayDataset, **options: Any) -> Predictor:
    """Returns a predictor with `RedReader` and the classes of a dataset."""
    descriptor = dataset.descriptor
    return Predictor(RedReader(), {}, descriptor.class_names, descriptor.palette, **options)


def write_workdir(
    path: pathlib.Path, class_names: Sequence[str], **overrides: object
) -> pathlib.Path:
    """Writes a workdir with a small untrained DeepLab, as after a training run."""
    description = ModelDescription(
        architecture="deeplab_v3",
        overrides={
            "backbone": "mobilenet_v2",
            "depth_multiplier": 0.35,
            "aspp_channels": 16,
            "num_classes": len(class_names),
            **overrides,
        },
        class_names=tuple(class_names),
        palette=bit_interleaved_palette(len(class_names)),
        inference_size=(65, 65),
    )
    path.mkdir(parents=True)
    model = description.create_model()
    image = jax.ShapeDtypeStruct((1, 33, 33, model.architecture.in_channels), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = jax.tree.map(functools.partial(_filled, np.random.default_rng(0)), shapes)
    write_description(path, description)
    with open_checkpoints(path, read_only=False) as manager:
        item = ocp.args.Composite(variables=ocp.args.StandardSave(variables))
        manager.save(1, args=item, metrics={"mean_iou": 0.5})
    return path


def _filled(random: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns kernels of unit gain and ones for the rest; far faster than compiling `init`."""
    if len(leaf.shape) < 2:
        return np.ones(leaf.shape, np.float32)
    return random.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)


class WatchedPredictor(Predictor):
    """Predictor whose `predict` fails while the probabilities of its last call are in memory.

    Attributes:
      last: function that returns these probabilities, or None if they are freed.
    """

    last = staticmethod(lambda: None)

    def predict(self, image: np.ndarray) -> Prediction:
        assert self.last() is None
        found = super().predict(image)
        self.last = weakref.ref(found.probabilities)
        return found
