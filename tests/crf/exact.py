"""Exact mean-field inference in float64 with full kernel matrices, independent of the package."""

import numpy as np


def gaussian_matrix(features: np.ndarray) -> np.ndarray:
    """Returns [N, N]: exp(−|f_i − f_j|² / 2) of features [N, d]."""
    squares = np.zeros((len(features), len(features)))
    for feature in features.astype(np.float64).T:
        squares += np.subtract.outer(feature, feature) ** 2
    return np.exp(-squares / 2)


def features(image: np.ndarray, position_std: float, color_std: float | None) -> np.ndarray:
    """Returns [H·W, 5], or [H·W, 2] if there is no color deviation."""
    height, width = image.shape[:2]
    row, column = np.mgrid[:height, :width]
    position = np.stack([row, column], axis=-1).reshape(-1, 2) / position_std
    if color_std is None:
        return position
    return np.concatenate([position, image.reshape(-1, 3) / color_std], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def kernels(image: np.ndarray, parameters) -> list[np.ndarray]:
    """Returns the normalized kernel matrices times their weights."""
    found = []
    for weight, position, color in [
        (
            parameters.bilateral_weight,
            parameters.bilateral_position_std,
            parameters.bilateral_color_std,
        ),
        (parameters.smoothness_weight, parameters.smoothness_position_std, None),
    ]:
        matrix = gaussian_matrix(features(image, position, color))
        total = matrix.sum(axis=1)
        if parameters.normalization == "after":
            found.append(weight * matrix / total[:, None])
        else:
            found.append(weight * matrix / np.sqrt(np.outer(total, total)))
    return found


def exact_crf(logits, image, parameters, compatibility=None) -> np.ndarray:
    """Returns the probabilities [H, W, C] of logits [H, W, C] and an image [H, W, 3]."""
    classes = logits.shape[-1]
    unary = np.asarray(logits, np.float64).reshape(-1, classes)
    if compatibility is None:
        compatibility = 1 - np.eye(classes)
    matrix = sum(kernels(image, parameters))
    marginals = softmax(unary)
    for _ in range(parameters.iterations):
        marginals = softmax(unary - matrix @ marginals @ np.asarray(compatibility).T)
    return marginals.reshape(logits.shape)
