"""A small network with batch normalization, and batches for it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from deeplab_jax import config as configs
from deeplab_jax.layers import Classifier, ConvNorm, Normalization
from deeplab_jax.models import Architecture
from deeplab_jax.training.loss import Objective, make_objective

NUM_CLASSES = 4


class Small(nn.Module):
    """A convolution, batch normalization unless `frozen`, and one or two classifiers."""

    frozen: bool = False
    auxiliary: bool = False
    architecture: Architecture = Architecture("mobilenet_v2", num_classes=NUM_CLASSES)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, endpoints: bool = False):
        pixels = image.astype(jnp.float32) / 255
        conv_norm = ConvNorm(6, Normalization(decay=0.9, epsilon=1e-3), name="conv")
        features = conv_norm(pixels, train and not self.frozen)
        logits, maps = Classifier(NUM_CLASSES, name="classifier")(features), {}
        if self.auxiliary:
            maps["auxiliary"] = Classifier(NUM_CLASSES, name="auxiliary")(features)
        return (logits, maps) if endpoints else logits


def objective_of(model: nn.Module, **changes) -> Objective:
    """Returns the objective of the default config with changes to its section `loss`."""
    config = configs.default().loss
    config.update(changes)
    return make_objective(config, model.architecture)


def random_batch(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns noise in which each image has more void than the one before."""
    random = np.random.default_rng(seed)
    label = random.integers(0, NUM_CLASSES, (size, 8, 9))
    void = random.random(label.shape) < np.linspace(0, 0.9, size)[:, None, None]
    return {
        "image": random.integers(0, 256, (size, 8, 9, 3), dtype=np.uint8),
        "label": np.where(void, 255, label).astype(np.uint8),
    }
