import importlib
import pkgutil

import pytest

import deeplab_jax
from deeplab_jax.lazy import lazy_names

PACKAGES = [
    name
    for _, name, is_package in pkgutil.walk_packages(deeplab_jax.__path__, "deeplab_jax.")
    if is_package
]


@pytest.mark.parametrize("package", ["deeplab_jax", *PACKAGES])
def test_every_public_name_resolves_to_a_non_module(package):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert not isinstance(getattr(module, name), type(importlib))
    assert set(getattr(module, "__all__", [])) <= set(dir(module))


def test_another_name_is_an_attribute_error():
    get, _, names = lazy_names("deeplab_jax", {".errors": "DeepLabError unknown_name"})
    assert names == ["DeepLabError", "unknown_name"]
    with pytest.raises(AttributeError, match="'deeplab_jax' has no attribute 'nonsense'"):
        get("nonsense")
