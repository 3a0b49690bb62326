"""The API reference has a page for every package with public names, and each name a docstring."""

import importlib
import inspect
import pathlib
import pkgutil
import typing
from collections.abc import Mapping

import pytest

import deeplab_jax

PAGES = pathlib.Path(__file__).parents[2] / "docs" / "reference" / "api"


def packages() -> list[str]:
    """Returns the modules and packages whose public names are declared in `__all__`."""
    names = [info.name for info in pkgutil.iter_modules(deeplab_jax.__path__) if info.ispkg]
    found = [f"deeplab_jax.{name}" for name in names]
    public = [name for name in found if getattr(importlib.import_module(name), "__all__", None)]
    return ["deeplab_jax", *public]


PACKAGES = packages()
# The modules of the commands, and the recipes, have no names to import.
WITHOUT_NAMES = {"cli", "configs"}
# Constants and aliases of types need no docstring: `help` would show that of their type.
DATA = (int, float, str, tuple, frozenset, Mapping, list)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_a_page_that_the_index_lists(package):
    name = package.rpartition(".")[2]
    assert f".. automodule:: {package}\n   :members:" in (PAGES / f"{name}.md").read_text()
    assert f"\n{name}\n" in (PAGES / "index.md").read_text()


def test_every_other_package_has_public_names():
    names = {info.name for info in pkgutil.iter_modules(deeplab_jax.__path__) if info.ispkg}
    documented = {package.rpartition(".")[2] for package in PACKAGES}
    assert names - documented <= WITHOUT_NAMES


def test_every_page_documents_a_module_that_exists():
    for page in PAGES.glob("*.md"):
        if page.stem != "index":
            module = "deeplab_jax" if page.stem == "deeplab_jax" else f"deeplab_jax.{page.stem}"
            importlib.import_module(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package):
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    described = {
        name: value
        for name, value in values.items()
        if inspect.isclass(value) or inspect.isfunction(value) or hasattr(value, "__wrapped__")
    }
    assert not [name for name, value in described.items() if not inspect.getdoc(value)]
    others = {name: value for name, value in values.items() if name not in described}
    assert not [
        name
        for name, value in others.items()
        if not isinstance(value, DATA) and typing.get_origin(value) is None
    ]
