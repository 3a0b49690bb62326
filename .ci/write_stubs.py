"""Writes the type stubs of packages that import their names on first use, see `lazy_names`.

Type checkers do not see names that are imported on first use. `__init__.pyi` beside `__init__.py`
declares them.

Usage: python .ci/write_stubs.py [--check]
"""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
HEADER = "# Written by .ci/write_stubs.py from __init__.py, for type checkers.\n"
# In these packages, one name stands for a segmentation network or an image classifier, which
# callers would have to tell apart.
WITHOUT = ("deeplab_jax", "deeplab_jax/inference", "deeplab_jax/models")


def stub(source: str) -> str | None:
    """Returns the stub for the source of a package; None if it has no names to import late."""
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name("lazy_names"), args=[_, table])):
                modules = ast.literal_eval(table)
                return HEADER + "".join(
                    f"from {module} import {name} as {name}\n"
                    for module, names in modules.items()
                    for name in names.split()
                )
    return None


def main(check: bool) -> None:
    """Writes the stubs; with `check` it only compares them, and exits with a message."""
    outdated = []
    for package in sorted((ROOT / "deeplab_jax").rglob("__init__.py")):
        path, text = package.with_suffix(".pyi"), stub(package.read_text(encoding="utf-8"))
        if str(package.parent.relative_to(ROOT)) in WITHOUT:
            text = None
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if text == before:
            continue
        outdated.append(str(path.relative_to(ROOT)))
        if check:
            continue
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
    if check and outdated:
        sys.exit(f"{', '.join(outdated)}: outdated; run make format")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
