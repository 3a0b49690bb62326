"""A published classifier of whole images sees what is in one."""

import jax
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.pretrained import convert

# Of the image's height and width; what slim evaluates on.
CENTRAL = 0.875


def central_part(path, size):
    """The middle of an image, resized bilinearly."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = image.size
    edge = (1 - CENTRAL) / 2
    box = (width * edge, height * edge, width * (1 - edge), height * (1 - edge))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


@pytest.fixture(scope="module")
def classifier(shared):
    return convert(shared / "weights" / "mobilenet_v2_imagenet_224_uint8.tflite")


def test_description(classifier):
    description = classifier.description
    assert description.task == "classification"
    assert description.inference_size == (224, 224)
    assert description.overrides == {
        "backbone": "mobilenet_v2",
        "depth_multiplier": 1.0,
        "num_classes": 1001,
    }
    assert description.class_names[:2] == ("background", "tench")
    assert not classifier.assignment.unused


def test_cat(classifier, shared):
    description = classifier.description
    image = central_part(shared / "data" / "golden" / "cat.png", description.inference_size)
    logits = jax.jit(description.create_model().apply)(classifier.variables, image[None])
    best = [description.class_names[label] for label in np.argsort(logits[0])[::-1][:3]]
    cats = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
    assert cats.intersection(best), best
