"""Weights of timm's networks that are drawn from their names, without timm."""

import hashlib
import math
import zlib

import jax
import numpy as np
from flax import traverse_util

from deeplab_jax.backbones import find_backbone
from deeplab_jax.pretrained.assignment import NORM_LEAVES
from deeplab_jax.pretrained.name_maps import translate
from deeplab_jax.pretrained.name_maps.timm import TIMM_LEAVES
from deeplab_jax.pretrained.name_maps.timm_backbones import rules

ODD, EVEN = (65, 97), (64, 96)


def draw(name, shape):
    """Returns values of an array of timm, float32; they depend only on name and shape."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return random.normal(0, math.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
    if name.endswith(("weight", "running_var", "gamma")):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    return random.normal(0, 0.2, shape).astype(np.float32)


def pixels(size):
    """Returns one normalized image [1, H, W, 3], float32."""
    return np.random.default_rng(1).normal(0, 1, (1, *size, 3)).astype(np.float32)


def named_variables(backbone):
    """Returns {path of our variable: (name in timm, our shape)} of a backbone `timm/…`."""
    module = find_backbone(backbone).module()
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), pixels((33, 33)), False))
    name_map, found = rules(backbone), {}
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        _, *parts, variable = path
        is_norm = parts[-1] == "norm"
        scopes = translate("/".join(["backbone", *parts[: -1 if is_norm else None]]), name_map)
        (template,) = TIMM_LEAVES[NORM_LEAVES[variable] if is_norm else variable]
        found[path] = (template.format(**scopes._asdict()), leaf.shape)
    return found


def drawn_variables(backbone):
    """Returns variables of a backbone `timm/…`, drawn from timm's names."""
    flat = {}
    for path, (name, shape) in named_variables(backbone).items():
        if len(shape) == 4:
            flat[path] = draw(name, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
        else:
            flat[path] = draw(name, shape)
    return traverse_util.unflatten_dict(flat)


def summary(arrays):
    """Returns the number of parameters, and a checksum of names and sizes of all arrays.

    Args:
      arrays: number of values of each array by name in timm.
    """
    listing = "".join(f"{name} {size}\n" for name, size in sorted(arrays.items()))
    parameters = sum(size for name, size in arrays.items() if ".running_" not in name)
    return {"parameters": parameters, "sha256": hashlib.sha256(listing.encode()).hexdigest()}


def samples(values):
    """Returns numbers of a feature map [N, H, W, C] that differ if any part of it differs."""
    values = np.asarray(values, np.float64)
    weights = np.random.default_rng(2).normal(0, 1, values.shape)
    return {
        "shape": list(values.shape),
        "largest": float(np.abs(values).max()),
        "weighted_sum": float((values * weights).sum()),
        "values": [float(value) for value in values.ravel()[:: values.size // 7]],
    }
