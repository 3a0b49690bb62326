"""Random logits and labels of every kind, and losses of single pixels by NumPy loops."""

import numpy as np

NUM_CLASSES = 4
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (2, 5, 7, NUM_CLASSES)).astype(np.float32)
LABEL = RANDOM.integers(0, NUM_CLASSES, (2, 5, 7)).astype(np.uint8)
KNOWN = RANDOM.random(LABEL.shape) >= 0.3
PARTLY_VOID = np.where(KNOWN, LABEL, 255).astype(np.uint8)
ONE_HOT = (PARTLY_VOID[..., None] == np.arange(NUM_CLASSES)).astype(np.float32)
SOFT = RANDOM.dirichlet(np.ones(NUM_CLASSES), LABEL.shape).astype(np.float32)
SOFT_PARTLY_VOID = np.where(KNOWN[..., None], SOFT, 0)
WEIGHTS = (0.5, 0.0, 2.0, 1.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def known_pairs(logits: np.ndarray, label: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Returns (probabilities, class) of each pixel that is not void."""
    probabilities = softmax(logits).reshape(-1, logits.shape[-1])
    pairs = zip(probabilities, label.ravel().tolist(), strict=True)
    return [pair for pair in pairs if pair[1] != 255]
