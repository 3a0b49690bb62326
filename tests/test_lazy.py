import importlib
import pkgutil

import pytest

import deeplab_jax
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra, lazy_names

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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is not installed; run pip install 'deeplab_jax[extra]'"),
        ("raise ImportError('libz.so.9: no such file')", "cannot be imported (libz.so.9: no such"),
        ("import dependency_of_stranger", "imported (No module named 'dependency_of_stranger')"),
    ],
)
def test_the_reason_why_an_optional_library_is_not_imported(tmp_path, monkeypatch, content, reason):
    monkeypatch.syspath_prepend(tmp_path)
    if content is not None:
        (tmp_path / "library_of_stranger.py").write_text(content)
    with pytest.raises(DeepLabError) as caught:
        import_extra("library_of_stranger", "extra", "a file")
    assert str(caught.value).startswith("a file requires library_of_stranger, which ")
    assert reason in str(caught.value)
