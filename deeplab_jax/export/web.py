"""Web export: a static page that runs the network in the browser with onnxruntime-web."""

import json
import shutil
from importlib import resources
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import describe
from deeplab_jax.export.onnx import write_onnx
from deeplab_jax.export.program import Program
from deeplab_jax.files import as_path, replacing_directory

PACKAGE = "onnxruntime-web"
# Subdirectory of the page that contains onnxruntime-web, and the files in it that the page loads:
# the JavaScript interface, and the runtime in WebAssembly.
RUNTIME = "runtime"
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
# Files of the page itself. They are copied from the package data of deeplab_jax.
PAGE_FILES = ("index.html", "page.js", "style.css", "worker.js")
NETWORK, DESCRIPTION = "model.onnx", "model.json"


def find_runtime(directory: str | Path | None = None) -> Path:
    """Returns the directory of the npm package onnxruntime-web.

    Args:
      directory: directory of the package, or a directory whose `node_modules` contains the package;
        None: `node_modules` is searched in the current directory and its parents, as Node does.

    Raises:
      DeepLabError: the package is not found.
    """
    inside = Path("node_modules", PACKAGE)
    if directory is not None:
        given = as_path(directory)
        candidates = [given, given / inside, given / PACKAGE]
    else:
        current = Path.cwd()
        candidates = [folder / inside for folder in (current, *current.parents)]
    for candidate in candidates:
        if all((candidate / "dist" / name).is_file() for name in RUNTIME_FILES):
            return candidate
    place = f"in {directory}" if directory else "in node_modules of this directory or its parents"
    raise DeepLabError(
        f"the npm package {PACKAGE} was not found {place}; run `npm install {PACKAGE}`, or give "
        "the directory of the package, as in --runtime=node_modules/onnxruntime-web"
    )


def write_page(program: Program, path: str | Path, runtime: str | Path | None = None) -> None:
    """Writes a static page that runs the network in the browser; replaces a page at `path`.

    Args:
      program: program to export; it must map one uint8 RGB image to a class map.
      path: directory of the page.
      runtime: directory of the npm package onnxruntime-web, or a directory whose `node_modules`
        contains the package (default: found in `node_modules` of the current directory or its
        parents).

    Raises:
      DeepLabError: the program does not map one uint8 RGB image to a class map; onnxruntime-web is
        not found; `path` exists and is neither an exported page nor an empty directory; or `path`
        is a mount point or the current directory.
    """
    _check(program)
    path, package = Path(path), find_runtime(runtime)
    check_page(path)
    with replacing_directory(path, overwrite=True) as page:
        (page / RUNTIME).mkdir()
        write_onnx(program, page / NETWORK)
        (page / DESCRIPTION).write_text(_description(program, package), encoding="utf-8")
        sources = resources.files("deeplab_jax.export") / "page"
        for name in PAGE_FILES:
            (page / name).write_bytes((sources / name).read_bytes())
        for name in RUNTIME_FILES:
            shutil.copyfile(package / "dist" / name, page / RUNTIME / name)
        # Files with the version and the license of onnxruntime-web.
        for name in ("package.json", "LICENSE", "ThirdPartyNotices.txt"):
            if (package / name).is_file():
                shutil.copyfile(package / name, page / RUNTIME / name)


def check_page(path: Path) -> None:
    """Checks that a page written to a path would replace nothing but an exported page.

    Raises:
      DeepLabError: `path` exists and is neither an exported page nor an empty directory.
    """
    if path.exists() and not is_page(path) and not (path.is_dir() and not any(path.iterdir())):
        raise DeepLabError(f"{path} exists and is not an exported page; give another --output")


def is_page(path: Path) -> bool:
    """Returns whether a path is the directory of an exported page."""
    return all((path / name).is_file() for name in (*PAGE_FILES, NETWORK, DESCRIPTION))


def _check(program: Program) -> None:
    options, architecture = program.options, program.predictor.model.architecture
    if not architecture.takes_rgb:
        raise DeepLabError(
            f"this network takes {architecture.in_channels} bands of {architecture.image_dtype}, "
            "but a web page reads RGB images; export it with --format=onnx"
        )
    if not options.preprocessing or not options.argmax:
        raise DeepLabError(
            "the network of a web page must take uint8 RGB images and return class maps; omit "
            "--preprocessing=outside and --argmax=outside"
        )
    if options.batch != 1:
        raise DeepLabError("a web page predicts one image at a time; --batch must be 1")


def _description(program: Program, package: Path) -> str:
    """Returns the JSON that the page reads: classes, legal image sizes and versions.

    The object `sizes` in this JSON has the keys of `Metadata.sizes` and two others, in pixels:

    * `fixed`: the only (H, W) that the network accepts; null if it accepts several.
    * `minimum`: (H, W) to which smaller images are padded; null: none.

    Args:
      program: exported program.
      package: directory of the npm package onnxruntime-web.
    """
    metadata, smallest = describe(program), program.predictor.inference_size
    minimum = program.step.round_up(smallest) if smallest else None
    description = {
        "class_names": metadata.class_names,
        "palette": metadata.palette,
        "sizes": metadata.sizes | {"fixed": program.options.size, "minimum": minimum},
        "version": metadata.version,
        "runtime": f"{PACKAGE} {_version(package)}",
    }
    return json.dumps(description, indent=1)


def _version(package: Path) -> str:
    """Returns the version of the npm package in a directory."""
    try:
        return json.loads((package / "package.json").read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        return "of unknown version"
