"""Executes a saved ML program by the documented meaning of its operations, without Core ML."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.models.utils import load_spec
from jax import lax


def load_program(package: pathlib.Path):
    """Returns the specification of a package, and its program with the weights."""
    specification = load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    program = load(specification, specification.specificationVersion, str(weights))
    return specification, program.functions["main"]


def run(function, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs of a program by name."""
    known = {function.inputs[name]: np.asarray(value) for name, value in inputs.items()}

    def value(given):
        if isinstance(given, (list, tuple)):
            return [value(one) for one in given]
        return known[given] if given in known else given.val  # noqa: SIM401

    for operation in function.operations:
        if operation.op_type == "const":
            continue
        given = {name: value(one) for name, one in operation.inputs.items()}
        known[operation.outputs[0]] = np.asarray(OPERATIONS[operation.op_type](**given))
    return {output.name: known[output] for output in function.outputs}


def convolution(x, weight, bias=None, *, strides, pad_type, pad, dilations, groups):
    assert pad_type == "custom"
    names = ("NCHW", "OIHW", "NCHW")
    padding = [tuple(pad[:2]), tuple(pad[2:])]
    options = {"rhs_dilation": tuple(dilations), "feature_group_count": int(groups)}
    found = lax.conv_general_dilated(
        x, weight, tuple(strides), padding, dimension_numbers=names, **options
    )
    return found if bias is None else found + bias[:, None, None]


def grid(source, target, mode):
    """Returns the positions of samples, as the notes of `resize_bilinear` define them."""
    index = np.arange(target)
    if mode == "STRICT_ALIGN_CORNERS":
        points = index * (source - 1) / max(target - 1, 1)
    else:
        assert mode == "UNALIGN_CORNERS"
        spacing = source / target
        points = index * spacing + 0.5 * spacing - 0.5
    return np.clip(points, 0, source - 1)


def resize(x, target_size_height, target_size_width, sampling_mode):
    mode = str(sampling_mode)
    for axis, target in ((2, int(target_size_height)), (3, int(target_size_width))):
        points = grid(x.shape[axis], target, mode)
        before = np.floor(points).astype(int)
        after = np.minimum(before + 1, x.shape[axis] - 1)
        share = (points - before).astype(x.dtype)
        share = share[:, None] if axis == 2 else share
        x = np.take(x, before, axis) * (1 - share) + np.take(x, after, axis) * share
    return x


def pool(x, kernel_sizes, strides, pad_type, pad, initial, combine):
    assert pad_type == "custom"
    window, steps = (1, 1, *map(int, kernel_sizes)), (1, 1, *map(int, strides))
    padding = [(0, 0), (0, 0), tuple(map(int, pad[:2])), tuple(map(int, pad[2:]))]
    return lax.reduce_window(x, np.asarray(initial, x.dtype), combine, window, steps, padding)


def average_pool(x, kernel_sizes, exclude_padding_from_average, ceil_mode=False, **options):
    assert not ceil_mode
    total = pool(x, kernel_sizes, **options, initial=0, combine=lax.add)
    if exclude_padding_from_average:
        return total / pool(np.ones_like(x), kernel_sizes, **options, initial=0, combine=lax.add)
    return total / np.prod(kernel_sizes).astype(x.dtype)


def max_pool(x, kernel_sizes, ceil_mode=False, **options):
    assert not ceil_mode
    return pool(x, kernel_sizes, **options, initial=-np.inf, combine=lax.max)


def layer_norm(x, axes, epsilon, gamma=1, beta=0):
    """Normalizes over `axes`, whose shape `gamma` and `beta` have."""
    axes = tuple(map(int, axes))
    shape = [side if axis in axes else 1 for axis, side in enumerate(x.shape)]
    gamma, beta = (np.reshape(v, shape) if np.ndim(v) else v for v in (gamma, beta))
    centered = x - jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axes, keepdims=True)
    return centered / jnp.sqrt(variance + epsilon) * gamma + beta


def batch_norm(x, mean, variance, gamma=1, beta=0, epsilon=1e-5):
    """Normalizes each channel of [N, C, H, W] by given statistics."""
    mean, variance, gamma, beta = (
        np.reshape(v, (-1, 1, 1)) if np.ndim(v) else v for v in (mean, variance, gamma, beta)
    )
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def slice_by_index(x, begin, end, stride, begin_mask, end_mask):
    """Takes every `stride`-th index from `begin` to before `end`; masked bounds are those of x."""
    firsts = np.where(begin_mask, 0, begin)
    lasts = np.where(end_mask, x.shape, end)
    return x[tuple(map(slice, firsts, lasts, stride))]


TYPES = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}
OPERATIONS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "maximum": lambda x, y: np.maximum(x, y),
    "minimum": lambda x, y: np.minimum(x, y),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "clip": lambda x, alpha, beta: np.clip(x, alpha, beta),
    "cast": lambda x, dtype: x.astype(TYPES[str(dtype)]),
    "concat": lambda values, axis, interleave=False: np.concatenate(values, int(axis)),
    "conv": convolution,
    "batch_norm": batch_norm,
    "identity": lambda x: x,
    "gelu": lambda x, mode: jax.nn.gelu(x, approximate={"EXACT": False}[str(mode)]),
    "layer_norm": layer_norm,
    "rsqrt": lambda x, epsilon: 1 / np.sqrt(x + epsilon),
    "sigmoid": lambda x: jax.nn.sigmoid(x),
    "silu": lambda x: x * jax.nn.sigmoid(x),
    "avg_pool": average_pool,
    "max_pool": max_pool,
    "reduce_argmax": lambda x, axis, keep_dims: x.argmax(int(axis)).astype(np.int32),
    "reduce_l2_norm": lambda x, axes, keep_dims: jnp.sqrt(
        jnp.sum(jnp.square(x), tuple(axes), keepdims=bool(keep_dims))
    ),
    "reduce_mean": lambda x, axes, keep_dims: jnp.mean(x, tuple(axes), keepdims=bool(keep_dims)),
    "resize_bilinear": resize,
    "reverse": lambda x, axes: np.flip(x, tuple(axes)),
    "slice_by_index": slice_by_index,
    "transpose": lambda x, perm: np.transpose(x, tuple(perm)),
}
