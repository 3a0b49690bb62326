"""Serves the page with models that need no weights: python serve_stand_in.py PORT."""

import sys
import threading
import time

from stand_ins import RedReader

from deeplab_jax.app.page import serving
from deeplab_jax.app.service import Limits, SegmentationService
from deeplab_jax.inference import Predictor

NAMES = ("sky", "tree", "<b>road</b>", "car")
PALETTE = ((0, 0, 0), (107, 142, 35), (128, 64, 128), (0, 0, 142))


class Sleeper(Predictor):
    """Takes longer than the limit."""

    def __call__(self, image):
        time.sleep(3)
        return super().__call__(image)

    def with_inference_size(self, size):
        return self


def load(name: str) -> Predictor:
    """Returns the model of a name."""
    kind = Sleeper if name == "slow" else Predictor
    return kind(RedReader(), {}, NAMES, PALETTE, (129, 129))


if __name__ == "__main__":
    limits = Limits(megabytes=1.5, megapixels=1, seconds=1.5)
    with serving(
        SegmentationService(["red", "slow"], load, limits), port=int(sys.argv[1])
    ) as address:
        print(address, flush=True)
        threading.Event().wait()
