"""Packages that the GPU suite requires. This module itself imports none of them."""

import importlib.util

# Package → module that it provides.
PACKAGES = {
    "jax": "jax",
    "flax": "flax",
    "optax": "optax",
    "orbax-checkpoint": "orbax.checkpoint",
    "absl-py": "absl",
    "etils": "etils",
    "filelock": "filelock",
    "ml_collections": "ml_collections",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "rich": "rich",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "matplotlib": "matplotlib",
    "tensorboardX": "tensorboardX",
    "grain": "grain",
    "array_record": "array_record",
    "tensorflow-datasets": "tensorflow_datasets",
    "tflite": "tflite",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
}


def missing_packages() -> list[str]:
    """Returns the packages that are not installed, without importing any."""
    return [package for package, module in PACKAGES.items() if not _found(module)]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The parent package is missing.
        return False
