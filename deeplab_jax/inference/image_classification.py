"""Prediction of the class of a whole image, with a backbone that was trained to classify images."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from deeplab_jax.data.images import read_image
from deeplab_jax.files import write_text
from deeplab_jax.inference.files import ClassificationJob
from deeplab_jax.inference.padding import Size, check_image
from deeplab_jax.models import ImageClassifier
from deeplab_jax.reporter import Reporter

# Fraction of each side of an image that the central crop keeps, as in the published evaluations.
CENTRAL_FRACTION = 0.875
DEFAULT_SIZE = (224, 224)
TOP = 5


class ClassProbability(NamedTuple):
    """A class and its probability, 0..1."""

    class_name: str
    probability: float


class ImageClassification:
    """Predicts the class of a whole image.

    Attributes:
      model: the network.
      variables: parameters and batch statistics of the network, on the device.
      class_names: names of the classes, in the order of the logits.
      inference_size: (H, W) in pixels to which the central crop of an image is resized; see
        `central_crop`.
      source: name or path of the model, for reports.
    """

    def __init__(
        self,
        model: ImageClassifier,
        variables: Any,
        class_names: Sequence[str],
        inference_size: Size | None = None,
        source: str = "",
    ) -> None:
        self.model = model
        self.variables = jax.device_put(variables)
        self.class_names = tuple(class_names)
        self.inference_size = inference_size or DEFAULT_SIZE
        self.source = source
        self._probabilities = jax.jit(
            lambda variables, image: jax.nn.softmax(model.apply(variables, image, train=False))
        )

    def __call__(self, image: np.ndarray, top: int = TOP) -> list[ClassProbability]:
        """Returns the most probable classes, in order of descending probability.

        Args:
          image: uint8 [H, W, 3], RGB.
          top: maximum number of classes.

        Raises:
          DeepLabError: `image` is not uint8 [H, W, 3], or has no pixels.
        """
        probabilities = self.probabilities(image)
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [
            ClassProbability(self.class_names[index], float(probabilities[index]))
            for index in order
        ]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Returns the probability of every class, float32 [num_classes].

        Args:
          image: uint8 [H, W, 3], RGB.

        Raises:
          DeepLabError: `image` is not uint8 [H, W, 3], or has no pixels.
        """
        batch = central_crop(image, self.inference_size)[None]
        # A copy is writable, whereas JAX owns the memory of its results.
        return np.array(self._probabilities(self.variables, batch)[0])


def central_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """Crops an image to the central 87.5 % of each side, and resizes the crop bilinearly.

    Args:
      image: uint8 [H, W, 3].
      size: (H, W) of the result.

    Raises:
      DeepLabError: `image` is not uint8 [H, W, 3], or has no pixels.
    """
    check_image(image)
    height, width = image.shape[:2]
    rows, columns = (int((side - side * CENTRAL_FRACTION) / 2) for side in (height, width))
    middle = Image.fromarray(image[rows : height - rows, columns : width - columns])
    return np.asarray(middle.resize(size[::-1], Image.Resampling.BILINEAR))


def classify_files(
    classifier: ImageClassification,
    jobs: Sequence[ClassificationJob],
    reporter: Reporter,
    *,
    page: int | None = None,
) -> list[list[ClassProbability]]:
    """Classifies images, and writes a JSON file with the five most probable classes of each image.

    Each file is written atomically.

    Args:
      classifier: model to apply.
      jobs: result of `plan_classifications`.
      reporter: receives progress events.
      page: number, from 1, of the page to read from TIFF files; None: a file must have one page.

    Returns:
      The five most probable classes of each image, in order of descending probability.

    Raises:
      DeepLabError: an image cannot be read.
    """
    found = []
    for job in reporter.track(jobs, "classifying, image"):
        classes = classifier(read_image(job.image, page=page))
        content = {"image": job.image.name, "classes": [entry._asdict() for entry in classes]}
        write_text(job.classes, json.dumps(content, indent=2) + "\n")
        found.append(classes)
    return found
