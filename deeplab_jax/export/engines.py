"""Predictors that execute their network with a runtime (engine) other than JAX."""

import contextlib
import functools
import hashlib
import importlib.metadata
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from deeplab_jax.checkpointing import digest_of_variables, parse_description
from deeplab_jax.errors import DeepLabError, check_name, unknown_name
from deeplab_jax.export.program import ExportOptions, Size
from deeplab_jax.export.runtimes import ExportedNetwork, check_exports, export, load_exported
from deeplab_jax.files import ENGINE_SUFFIX, ENGINES, check_writable, program_directory
from deeplab_jax.inference import InferenceOptions, programs
from deeplab_jax.inference.forward import (
    Finish,
    finish_logits,
    fused_logits,
    image_at_scale,
    one_scale,
    only_class_map,
)
from deeplab_jax.inference.padding import padded_size
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.inference.programs import Images
from deeplab_jax.lazy import import_extra, import_tensorflow
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import LoggingReporter, Reporter

# Python packages that write each format; their versions are part of the names of stored files.
WRITERS = {"onnx": ("onnx",), "tflite": ("tensorflow", "tensorflow-cpu")}
# Maximum numbers of exported files: kept on disk (the newest), and loaded (the last used).
MAX_FILES, MAX_LOADED = 32, 8

# Function that returns the loaded file for a network, the size (H, W) of its images, whether these
# are pixels (otherwise normalized floats), and whether to return classes (otherwise logits).
FileOf = Callable[[DeepLab, Size, bool, bool], ExportedNetwork]


def with_engine(
    predictor: Predictor,
    engine: str,
    *,
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> Predictor:
    """Returns a predictor of the same model that executes the network with the runtime `engine`.

    The network is exported once for each padded image size. The exported files are stored in the
    cache directory of traced programs. Scales, flips, tiles and CRF have the same effect as with
    JAX.

    Args:
      predictor: predictor of the trained network.
      engine: runtime: `jax`, `onnx` or `tflite`. With `jax`, the predictor itself is returned.
      threads: maximum number of threads of the runtime (default: number of cores that are available
        to this process).
      reporter: receives a message for each export (default: the logger).

    Raises:
      DeepLabError: the engine is unknown, its packages are not installed, or its file format does
        not support the network.
    """
    check_name("engine", engine, ENGINES)
    if engine == "jax":
        return predictor
    _import_runtime(engine)
    check_exports(predictor, engine)

    def make_network(model: DeepLab, variables: Any) -> EngineNetwork:
        files = _ModelFiles(predictor, variables, engine, threads, reporter or LoggingReporter())
        return EngineNetwork(model, files.load)

    return predictor.with_networks(make_network)


def _import_runtime(engine: str) -> None:
    """Imports the packages of an engine, so that a missing package is reported at the start."""
    purpose = f"the engine {engine}"
    if engine == "onnx":
        import_extra("onnx", "onnx", purpose)
        import_extra("onnxruntime", "onnx", purpose)
    else:
        import_extra("ai_edge_litert.interpreter", "tflite", purpose)


class EngineNetwork:
    """Network whose forward pass runs in another runtime, from exported files.

    It has the interface of `FoldedNetwork`, whose forward pass runs in JAX.

    Attributes:
      model: the network, at the output stride that inference uses.
    """

    def __init__(self, model: DeepLab, file_of: FileOf) -> None:
        """Creates the network.

        Args:
          model: the network, at the output stride that inference uses.
          file_of: function that returns an exported file, loaded in its runtime. Its arguments are
            the network, the size (H, W) of the images, whether the file takes pixels (otherwise
            normalized floats), and whether the file returns class maps (otherwise logits).
        """
        self.model, self._file_of = model, file_of

    def forward(
        self, options: InferenceOptions, finish: Finish, mesh: Mesh | None = None
    ) -> Callable[[np.ndarray], Any]:
        """Returns a function that maps images [N, H, W, C] to the result of `finish`.

        Args:
          options: inference options; only scales and flip are used.
          finish: function of the class map and the logits, both at the resolution of the images.
            See `forward_pass`.
          mesh: mesh of one device, or None. It is not used: the runtime selects its own device.

        Raises:
          DeepLabError: the mesh has several devices. The returned function raises a DeepLabError if
            `finish` requires logits, but the exported file returns classes.
        """
        if mesh is not None and mesh.size > 1:
            raise DeepLabError(
                f"an exported network runs on one device, but the mesh has {mesh.size} devices; "
                "give mesh=parallel.make_mesh(jax.devices()[:1]), or load the model directory with "
                "engine='jax'"
            )
        network, finish_all = one_scale(self.model, options.scales), finish_logits(finish)
        classes_only = finish is only_class_map and not options.fuses

        def call(images: np.ndarray) -> Any:
            def logits_at_scale(image: Images, scale: float) -> np.ndarray:
                scaled = np.asarray(_image_at_scale(image, model=network, scale=scale))
                return self._run(network, scaled, classes_only)

            outputs: Images
            if not options.fuses:
                outputs = self._run(network, images, classes_only)
            else:
                outputs = fused_logits(
                    self.model.architecture, options.scales, options.flip, images, logits_at_scale
                )
            if outputs.ndim == 4:
                return finish_all(outputs)
            if finish is only_class_map:
                return outputs
            raise DeepLabError(
                "this exported file returns only classes, but logits are required; export the "
                "model again with --argmax=outside"
            )

        return call

    def _run(self, model: DeepLab, images: np.ndarray, classes: bool) -> np.ndarray:
        """Computes class maps or logits with an exported file, in batches of its batch size.

        Args:
          model: the network, at the output stride that inference uses.
          images: [N, H, W, C], pixels or normalized floats.
          classes: whether to compute class maps; False: logits are computed.
        """
        pixels = np.issubdtype(images.dtype, np.integer)
        file = self._file_of(model, images.shape[1:3], pixels, classes)
        batch = file.metadata.input["shape"][0] or 1
        outputs = []
        for start in range(0, len(images), batch):
            group = images[start : start + batch]
            missing = batch - len(group)
            whole = np.concatenate([group, np.repeat(group[-1:], missing, axis=0)])
            outputs.append(file.run(file.metadata.normalized(whole))[: len(group)])
        return np.concatenate(outputs)


_image_at_scale = jax.jit(
    lambda image, *, model, scale: image_at_scale(model, image, scale),
    static_argnames=("model", "scale"),
)


class _ModelFiles:
    """Exported files of a model, each written when it is first used.

    There is a file for each combination of image size, input (pixels or normalized floats) and
    output (classes or logits).
    """

    def __init__(
        self,
        predictor: Predictor,
        variables: Any,
        format: str,
        threads: int | None,
        reporter: Reporter,
    ) -> None:
        self._predictor, self._variables, self._format = predictor, variables, format
        self._threads, self._reporter = threads, reporter
        self._temporary: Path | None = None
        self.load = functools.lru_cache(maxsize=MAX_LOADED)(self._load)

    def _load(self, model: DeepLab, size: Size, pixels: bool, classes: bool) -> ExportedNetwork:
        """Loads an exported file; exports the network first if the file is missing or damaged.

        Args:
          model: the network, at the output stride that inference uses.
          size: (H, W) of the images in pixels.
          pixels: True: the file takes pixels. False: it takes normalized floats.
          classes: True: the file returns class maps. False: it returns logits.
        """
        options = ExportOptions(size=size, batch=1, preprocessing=pixels, argmax=classes)
        path = self._path(f"{self._name(model, options)}.{self._format}{ENGINE_SUFFIX}")
        if path.is_file():
            try:
                return load_exported(path, self._threads)
            # On damaged files, runtimes raise exceptions of many types.
            except Exception:
                path.unlink(missing_ok=True)
        height, width = size
        self._reporter.message(f"exporting the network to {self._format} at {height}x{width}")
        if self._format == "tflite":
            import_tensorflow("tflite", "the engine tflite")
        given = self._predictor
        exported = Predictor(
            model, self._variables, given.class_names, given.palette, source=given.source
        )
        export(exported, path, self._format, options)
        programs.remove_oldest(path.parent, ENGINE_SUFFIX, MAX_FILES)
        return load_exported(path, self._threads)

    def _path(self, name: str) -> Path:
        """Returns the path at which a file is or will be stored.

        The path is in the program cache. If the cache is disabled, or lacks the file and cannot be
        written, the path is in a temporary directory.
        """
        directory = program_directory()
        if directory is not None:
            with contextlib.suppress(DeepLabError, OSError):
                if not (directory / name).is_file():
                    check_writable(directory)
                return directory / name
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="deeplab_jax-"))
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        return self._temporary / name

    def _name(self, model: DeepLab, options: ExportOptions) -> str:
        """Returns the name of a file: the SHA-256 of everything that determines its content."""
        versions = [f"{name} {_version(name)}" for name in WRITERS[self._format]]
        facts = [repr(model), repr(options), self._weights, *versions, *programs.surroundings()]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    @functools.cached_property
    def _weights(self) -> str:
        return digest_of_variables(self._variables)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


class FilePredictor(Predictor):
    """Predictor whose network is one exported file.

    The network has the output stride with which the file was exported, and is applied at scale 1
    only. If the file accepts only one image size, larger images must be predicted in tiles of this
    size.

    Attributes:
      file: exported file, loaded in its runtime.
      fixed_size: (H, W) of the images in pixels if the file accepts only one size, else None.
    """

    def __init__(self, file: ExportedNetwork, source: str) -> None:
        """Creates the predictor of an exported file.

        Args:
          file: exported file, loaded in its runtime (JAX, ONNX Runtime or LiteRT).
          source: path of the file, for reports and errors.

        Raises:
          DeepLabError: the file was exported by an earlier release and contains no description of
            the network.
        """
        self.file = file
        shape = file.metadata.input["shape"]
        self.fixed_size = None if None in shape[1:3] else (shape[1], shape[2])
        if file.metadata.model is None:
            raise DeepLabError(
                f"{source} was exported by an earlier release and contains no description of its "
                "network; export it again"
            )
        description = parse_description(dict(file.metadata.model))
        super().__init__(
            description.create_model(),
            {},
            description.class_names,
            description.palette,
            description.inference_size,
            source,
            intensity_range=description.intensity_range,
            chosen_bands=description.bands,
            temperature=description.temperature,
            make_network=lambda model, variables: EngineNetwork(model, self._file_of),
        )

    def _file_of(self, model: DeepLab, size: Size, pixels: bool, classes: bool) -> ExportedNetwork:
        return self.file

    def _apply(self, options: InferenceOptions, inference_size: Size | None) -> None:
        own = self._trained[0].architecture.output_stride
        if options.output_stride not in (None, own):
            raise DeepLabError(
                f"{self.source} supports only output stride {own}, with which it was exported; for "
                "another output stride, give the model directory from which it was exported"
            )
        if options.scales != (1.0,):
            raise DeepLabError(
                f"{self.source} supports only the scale 1, because it is an exported file; for "
                "other scales, give the model directory from which it was exported"
            )
        if self.file.metadata.output["name"] == "class_map" and (options.flip or options.crf):
            raise DeepLabError(
                f"{self.source} returns classes, but flip and crf require logits; export it again "
                "with --argmax=outside, or give the model directory from which it was exported"
            )
        if self.fixed_size and options.tile:
            (height, width), tile = self.fixed_size, padded_size(self._trained[0], options.tile)
            if tile != self.fixed_size:
                raise DeepLabError(
                    f"{self.source} takes images of {height}x{width} (height x width), not tiles "
                    f"of {tile[0]}x{tile[1]}; {self._how_to_tile(self.fixed_size)}"
                )
        super()._apply(options, self.fixed_size or inference_size)

    def _canvas(self, size: Size) -> Size:
        if self.fixed_size is None:
            return super()._canvas(size)
        self.check_size(size)
        return self.fixed_size

    def check_size(self, size: Size) -> None:
        """Checks that an image (H, W) fits into the fixed size of the file.

        If the file has no fixed size, or if images are predicted in tiles, all sizes are accepted.

        Raises:
          DeepLabError: the image is larger than the fixed size.
        """
        if self.fixed_size is None or self.tiling:
            return
        height, width = self.fixed_size
        if size[0] > height or size[1] > width:
            raise DeepLabError(
                f"{self.source} takes images of up to {height}x{width} (height x width), but an "
                f"image has {size[0]}x{size[1]}; {self._how_to_tile(self.fixed_size)}"
            )

    def _how_to_tile(self, fixed_size: Size) -> str:
        """Returns advice, for error messages, on images that are larger than `fixed_size`."""
        tile = height, width = padded_size(self._trained[0], fixed_size)
        first = "give" if tile == fixed_size else f"export it with --size={height}x{width} and give"
        return f"{first} --tile={height}x{width}, or export it with --size=any"


def load_file(path: str | Path, engine: str | None = None) -> FilePredictor:
    """Loads a file that `export` wrote, and returns its predictor.

    Args:
      path: path of a StableHLO, ONNX or TFLite file.
      engine: `jax` for a StableHLO file, `onnx` for an ONNX file or `tflite` for a TFLite file;
        None: selected by the format of the file.

    Raises:
      DeepLabError: the file is missing, damaged or not written by `export`; `engine` is unknown or
        does not match the format of the file; or the runtime of the format is not installed.
    """
    engines = {suffix: name for name, suffix in ENGINES.items()}
    own = engines.get(Path(path).suffix.lower())
    if engine is not None and engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if own is not None and engine not in (None, own):
        raise DeepLabError(
            f"{path} requires engine={own}, but engine={engine} was given; omit engine (--engine), "
            "or give the model directory from which the file was exported"
        )
    return FilePredictor(load_exported(path), str(path))
