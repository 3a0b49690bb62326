"""Mixing of two training crops: CutMix, ClassMix and copy-paste.

The second crop is taken from an example that is drawn uniformly from the dataset and augmented like
the first example. All random numbers for both crops come from one generator, which depends on
(seed, step, position in the global batch). A mixed crop therefore does not depend on the numbers of
hosts and workers. Two examples are read from disk for each mixed crop.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from deeplab_jax.data.augmentation import Augmentation, augment
from deeplab_jax.data.datasets import Dataset, Example
from deeplab_jax.errors import unknown_name
from deeplab_jax.labels import void_of

Crop = dict[str, np.ndarray]
# 8-connectivity: pixels that touch at a corner belong to one object.
CONNECTIVITY = 8


def training_crop(
    example: Example,
    random: np.random.Generator,
    dataset: Dataset,
    augmentation: Augmentation,
    num_classes: int | None = None,
    pasted: Sequence[int] = (),
) -> Crop:
    """Returns an augmented crop, which may be mixed with a crop of another example.

    Args:
      example: training example of any size.
      random: random generator; equal states give equal crops.
      dataset: dataset from which the other example is drawn.
      augmentation: augmentation of both crops, and the probability of each kind of mixing.
      num_classes: number of classes of the dataset, which determines the void label. None: void is
        65535 for uint16 labels and 255 otherwise.
      pasted: labels of the classes whose objects are pasted if the kind of mixing is copy-paste.

    Returns:
      {"image": [h, w, C], "label": [h, w]}, where (h, w) is the crop size. The dtypes are those of
      the example.
    """
    crop = augment(example, random, augmentation, num_classes)
    if not augmentation.mixes:
        return crop
    select = _drawn_selection(random, augmentation, pasted, num_classes)
    if select is None:
        return crop
    other = dataset[int(random.integers(len(dataset)))]
    source = augment(other, random, augmentation, num_classes)
    return paste(crop, source, select(random, source["label"]))


def _drawn_selection(
    random: np.random.Generator,
    augmentation: Augmentation,
    pasted: Sequence[int],
    num_classes: int | None,
) -> Callable[[np.random.Generator, np.ndarray], np.ndarray] | None:
    """Draws the kind of mixing at random.

    Returns:
      Function that selects the pixels to paste, bool [H, W], from a random generator and the label
      [H, W] of the other crop; None if the crop is not mixed.
    """
    drawn = random.random()
    if drawn < augmentation.cutmix:
        return lambda random, label: random_rectangle(random, label.shape)
    drawn -= augmentation.cutmix
    if drawn < augmentation.classmix:
        return lambda random, label: half_of_classes(random, label, void_of(label, num_classes))
    drawn -= augmentation.classmix
    if drawn < augmentation.copy_paste:
        return lambda random, label: random_objects(random, label, pasted)
    return None


def paste(crop: Crop, source: Crop, selected: np.ndarray) -> Crop:
    """Returns a copy of a crop in which the selected pixels are those of another crop.

    Args:
      crop, source: images [H, W, C] and labels [H, W] of equal size.
      selected: pixels that are taken from `source`, bool [H, W].
    """
    mixed = {name: array.copy() for name, array in crop.items()}
    for name, array in mixed.items():
        array[selected] = source[name][selected]
    return mixed


def random_rectangle(random: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Selects the pixels of a random rectangle with the aspect ratio of the crop.

    The area, as a fraction of the crop, is drawn uniformly from 0..1, and the center uniformly from
    all pixels. Parts outside the crop are cut off.

    Args:
      random: random generator.
      size: (height, width) of the crop.

    Returns:
      bool [H, W].

    Source: CutMix, arXiv 1905.04899, equation 2 with λ ~ Beta(1, 1); for segmentation, arXiv
    1906.01916.
    """
    ratio = math.sqrt(random.random())
    selected = np.zeros(size, bool)
    spans = []
    for side in size:
        half, center = int(side * ratio) // 2, int(random.integers(side))
        spans.append(slice(max(center - half, 0), center + half))
    selected[tuple(spans)] = True
    return selected


def half_of_classes(random: np.random.Generator, label: np.ndarray, void: int) -> np.ndarray:
    """Selects the pixels of a random half of the classes in a label map.

    Half of an odd number of classes is rounded down.

    Args:
      random: random generator.
      label: integers [H, W].
      void: value of void pixels, which are never selected.

    Returns:
      bool [H, W].

    Source: ClassMix, arXiv 2007.07936, algorithm 1, with labels in place of predictions.
    """
    classes = np.unique(label[label != void])
    return np.isin(label, random.choice(classes, len(classes) // 2, replace=False))


def random_objects(
    random: np.random.Generator, label: np.ndarray, classes: Sequence[int]
) -> np.ndarray:
    """Selects the pixels of each object of the given classes with probability ½.

    An object is a connected region of one class, since label maps do not separate instances.

    Args:
      random: random generator.
      label: integers [H, W].
      classes: labels of the classes.

    Returns:
      bool [H, W].

    Source: Simple Copy-Paste, arXiv 2012.07177, section 3: a random subset of the objects, without
    blending.
    """
    selected = np.zeros(label.shape, bool)
    for value in classes:
        mask = (label == value).astype(np.uint8)
        count, regions = cv2.connectedComponents(mask, connectivity=CONNECTIVITY)
        chosen = np.asarray(random.random(count) < 0.5)
        # Region 0 contains the other classes.
        chosen[0] = False
        selected |= chosen[regions]
    return selected


def pasted_labels(dataset: Dataset, augmentation: Augmentation) -> tuple[int, ...]:
    """Returns the labels of the classes that `augmentation.copy_paste_classes` names.

    Raises:
      DeepLabError: the dataset has no such class.
    """
    names = augmentation.copy_paste_classes
    if not names:
        return ()
    legal = dataset.descriptor.class_names
    for name in names:
        if name not in legal:
            where = f"class of {dataset.name} in augmentation.copy_paste_classes"
            raise unknown_name(where, name, legal)
    return tuple(legal.index(name) for name in names)
