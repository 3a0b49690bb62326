"""A file with torchvision's names, made without torchvision."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from deeplab_jax.models import create_classifier
from deeplab_jax.pretrained.assignment import NORM_LEAVES
from deeplab_jax.pretrained.conversion import wanted_variables
from deeplab_jax.pretrained.name_maps import IMAGE_CLASSIFIER, Identified, translate
from deeplab_jax.pretrained.name_maps.rules import LEAVES
from deeplab_jax.pretrained.name_maps.torchvision import rules

OPTIONS = {
    "backbone": "mobilenet_v3_small",
    "num_classes": 10,
    "stride_placement": "torchvision",
    "preprocessing": "mean_std",
}


def write_classifier(path: Path, prefix: str) -> None:
    """Writes MobileNetV3's classifier, random, each name after a prefix."""
    name_map = rules(Identified(IMAGE_CLASSIFIER, OPTIONS))
    random, arrays = np.random.default_rng(0), {}
    for (_, *module, leaf), shape in wanted_variables(create_classifier(**OPTIONS)).shapes.items():
        is_norm = module[-1] == "norm"
        scopes = translate("/".join(module[:-1] if is_norm else module), name_map)
        template = LEAVES[NORM_LEAVES[leaf] if is_norm else leaf][0]
        array = random.normal(size=shape).astype(np.float32)
        if len(shape) == 4:
            array = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
        arrays[prefix + template.format(**scopes._asdict())] = array
    save_file(arrays, path, metadata={"format": "pt"})
