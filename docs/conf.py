"""Configuration of the documentation site: `make docs` writes it to build/docs."""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
project = "deeplab_jax"
author = "The deeplab_jax developers"
copyright = author
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["containers"]
html_theme = "furo"
html_title = "deeplab_jax"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s:]+)\)")


def unlink_repository_files(app: Sphinx, name: str, source: list[str]) -> None:
    """Replaces links to files outside docs, which the site does not contain, with their text."""
    folder = (DOCS / name).parent

    def text_of(match: re.Match[str]) -> str:
        path = match[2].partition("#")[0]
        target = Path(os.path.normpath(folder / path))
        served = not path or (target.is_relative_to(DOCS) and target.suffix == ".md")
        return match[0] if served else match[1]

    source[0] = LINK.sub(text_of, source[0])


def escape_markup(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Escapes characters of docstrings that reStructuredText would take for markup."""
    # Items of lists may begin with `*`.
    parts = re.sub(r"(?m)^(\s*)\* ", r"\1- ", "\n".join(lines)).split("`")
    parts[::2] = [re.sub(r"([*|])|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
    lines[:] = "`".join(parts).split("\n")


def setup(app: Sphinx) -> None:
    """Connects the two functions above to Sphinx."""
    app.connect("source-read", unlink_repository_files)
    # Before napoleon, which writes markup of its own.
    app.connect("autodoc-process-docstring", escape_markup, priority=100)
