"""Convolution and interpolation by loops over pixels, as in the formulas of the papers."""

import math

import numpy as np

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    inputs: np.ndarray, kernel: np.ndarray, stride: int, rate: int, padding: Padding
) -> np.ndarray:
    """Returns the dense convolution of [N, H, W, C] with [k, k, C, D]."""
    padded = np.pad(inputs, ((0, 0), *padding, (0, 0)))
    outputs = np.zeros((*_map_size(padded, kernel, stride, rate), kernel.shape[-1]))
    for y, x in np.ndindex(outputs.shape[1:3]):
        for row, column in np.ndindex(kernel.shape[:2]):
            pixel = padded[:, y * stride + row * rate, x * stride + column * rate]
            outputs[:, y, x] += pixel @ kernel[row, column]
    return outputs


def depthwise(
    inputs: np.ndarray,
    kernel: np.ndarray,
    cotangent: np.ndarray,
    stride: int,
    rate: int,
    padding: Padding,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the depthwise convolution and the gradients of <it, cotangent> by both operands."""
    edges = ((0, 0), *padding, (0, 0))
    padded = np.pad(inputs, edges)
    outputs = np.zeros(cotangent.shape)
    padded_gradient, kernel_gradient = np.zeros(padded.shape), np.zeros(kernel.shape)
    for y, x in np.ndindex(outputs.shape[1:3]):
        for row, column in np.ndindex(kernel.shape[:2]):
            place = (slice(None), y * stride + row * rate, x * stride + column * rate)
            outputs[:, y, x] += padded[place] * kernel[row, column, 0]
            padded_gradient[place] += cotangent[:, y, x] * kernel[row, column, 0]
            kernel_gradient[row, column, 0] += (padded[place] * cotangent[:, y, x]).sum(0)
    inside = tuple(
        slice(before, length - after)
        for (before, after), length in zip(edges, padded.shape, strict=True)
    )
    return outputs, padded_gradient[inside], kernel_gradient


def interpolation(source: int, target: int, align_corners: bool) -> np.ndarray:
    """Returns the [target, source] weights of linear interpolation between samples."""
    weights = np.zeros((target, source))
    for index in range(target):
        if align_corners:
            position = index * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = (index + 0.5) * source / target - 0.5
        position = min(max(position, 0.0), source - 1.0)
        left = min(math.floor(position), max(source - 2, 0))
        share = position - left
        weights[index, left] += 1 - share
        weights[index, min(left + 1, source - 1)] += share
    return weights


def _map_size(
    padded: np.ndarray, kernel: np.ndarray, stride: int, rate: int
) -> tuple[int, int, int]:
    reach = (kernel.shape[0] - 1) * rate
    height, width = ((length - reach - 1) // stride + 1 for length in padded.shape[1:3])
    return padded.shape[0], height, width
