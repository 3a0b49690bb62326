"""Directory of a shared model: safetensors, `model.json`, model card and an example picture."""

import dataclasses
import errno
from pathlib import Path

import numpy as np

from deeplab_jax import inference
from deeplab_jax.checkpointing import (
    CLASSIFICATION,
    StoredModel,
    write_shared_model,
)
from deeplab_jax.data.shapes import OUTLINES, draw_scene
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing_directory
from deeplab_jax.pretrained.hub import CARD, PICTURE
from deeplab_jax.sharing.model_card import CardNotes, model_card
from deeplab_jax.sharing.training_facts import TrainingFacts
from deeplab_jax.visualize import legend_strip, write_picture

# Photographs of scikit-image that may be published: {class that the photograph shows: (name,
# credit)}, and the photograph for models with none of these classes.
PHOTOGRAPHS = {
    "person": ("astronaut", "NASA, public domain"),
    "cat": ("chelsea", "Stéfan van der Walt, CC0"),
}
ANY_PHOTOGRAPH = ("coffee", "Rachel Michetti, CC0")
# Small examples are upsampled by the largest whole factor for which the height of the image is at
# most this number of pixels.
MINIMUM_HEIGHT = 200
# Seed, split and index of the drawn example, which is in no dataset.
SCENE = (0, 9, 0)


def write_shared_directory(
    directory: Path, stored: StoredModel, training: TrainingFacts | None, notes: CardNotes
) -> None:
    """Writes the directory of a shared model, atomically.

    Args:
      directory: path of a directory that does not exist yet or is empty.
      stored: model to share.
      training: facts about the training run; None: the model is not from a workdir.
      notes: statements of the user for the model card. This function adds the caption of the
        example picture.

    Raises:
      DeepLabError: the directory is not empty or cannot be written.
    """
    try:
        with replacing_directory(directory) as temporary:
            write_shared_model(temporary, stored.description, stored.variables)
            example = example_image(stored)
            if example is not None:
                image, caption = example
                write_picture(temporary / PICTURE, _drawn(stored, image))
                notes = dataclasses.replace(notes, picture=caption)
            (temporary / CARD).write_text(model_card(stored, training, notes), "utf-8")
    except OSError as error:
        reason = "no space is left on the disk" if error.errno == errno.ENOSPC else error
        raise DeepLabError(f"{directory} cannot be written: {reason}") from error


def example_image(stored: StoredModel) -> tuple[np.ndarray, str] | None:
    """Returns an example image that may be published, uint8 [H, W, 3], and its caption.

    The image is a drawing of shapes if the classes of the model include all shapes of the synthetic
    dataset `shapes`, or if scikit-image is not installed. Otherwise, it is a photograph of
    scikit-image. Images of datasets are never used, because few of them may be published.

    Returns:
      Image and caption; None if the model takes no 8-bit RGB images, or classifies whole images.
    """
    description = stored.description
    bands = description.image_bands
    if description.task == CLASSIFICATION or not bands.are_rgb:
        return None
    names = description.class_names
    if not set(OUTLINES) <= set(names):
        photograph = _photograph(names)
        if photograph is not None:
            return photograph
    image, _ = draw_scene(*SCENE)
    return image, "Mask of the model on a drawn image"


def _photograph(class_names: tuple[str, ...]) -> tuple[np.ndarray, str] | None:
    """Returns a photograph of scikit-image and a caption; None without scikit-image."""
    try:
        import skimage.data
    except ImportError:
        return None
    found = (PHOTOGRAPHS[name] for name in PHOTOGRAPHS if name in class_names)
    name, credit = next(found, ANY_PHOTOGRAPH)
    caption = f"Mask of the model on a photograph of scikit-image, `{name}` ({credit})"
    return getattr(skimage.data, name)(), caption


def _drawn(stored: StoredModel, image: np.ndarray) -> np.ndarray:
    """Returns the image and its overlay side by side, above a legend of the predicted classes."""
    description = stored.description
    predictor = inference.Predictor(
        stored.model,
        stored.variables,
        description.class_names,
        description.palette,
        description.inference_size,
    )
    prediction = predictor.predict(image)
    pair = np.concatenate([image, prediction.overlay], axis=1)
    # Drawings have the size of the training images, since a model may fail at other sizes.
    factor = max(1, MINIMUM_HEIGHT // len(pair))
    pair = pair.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.concatenate([pair, legend_strip(prediction.legend, pair.shape[1])])
