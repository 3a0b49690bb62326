"""Only one context variable affects the computation; private JAX is imported in one file."""

import pathlib

import pytest

import deeplab_jax

PACKAGE = pathlib.Path(deeplab_jax.__file__).parent


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("ContextVar(", ["ops/dispatch.py"]),
        # It shows the inputs of layers and changes nothing.
        ("intercept_methods(", ["layers/convolution.py"]),
        ("jax._src import", ["parallel/private_jax.py"]),
    ],
)
def test_each_mechanism_is_used_in_one_file(text, files):
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    found = {path.relative_to(PACKAGE).as_posix(): s.count(text) for path, s in sources.items()}
    assert {name: count for name, count in found.items() if count} == dict.fromkeys(files, 1)
