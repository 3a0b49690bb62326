"""TensorFlow, imported when one of its own formats is read."""

import os
import warnings
from types import ModuleType

from deeplab_jax.pretrained.readers.extras import import_extra


def import_tensorflow() -> ModuleType:
    """Returns TensorFlow, which reports less than it does by default.

    Raises:
      DeepLabError: it is not installed.
    """
    # Read when the library is loaded: errors only.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("tensorflow", "tensorflow", "TensorFlow's files")
