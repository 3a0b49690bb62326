"""TFLite (LiteRT): one file for phones and small computers."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.data.padding import pad
from deeplab_jax.deploy.metadata import KEY, Metadata, describe, parse_metadata
from deeplab_jax.deploy.program import Program, fitted
from deeplab_jax.deploy.tensorflow_graph import TensorFlowWriter, import_tensorflow
from deeplab_jax.deploy.translation import translate
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing

# The first bytes of a TFLite file, after an offset of four.
IDENTIFIER = b"TFL3"


def write_tflite(
    program: Program, path: str | Path, calibration: Sequence[np.ndarray] | None = None
) -> None:
    """Writes a TFLite file, in 32-bit floats or in 8-bit integers.

    Integers are TensorFlow's: kernels int8 with a scale an output channel, maps int8 with one scale
    and zero point each, from the ranges that images give. Input and output stay as the options say.

    Args:
      program: to be exported; its size must be fixed.
      path: of the file, which is written whole or not at all.
      calibration: images, uint8 [H, W, 3], that the ranges are measured on; None: floats.

    Raises:
      DeepLabError: TensorFlow is not installed, or the network has what TFLite has not.
    """
    converter = tflite_converter(program)
    if calibration is not None:
        converter.optimizations = [import_tensorflow().lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(program, calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = converter.convert()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(_with_metadata(content, describe(program)))


def tflite_converter(program: Program) -> Any:
    """Returns TensorFlow's converter of a program, to be set up further.

    Raises:
      DeepLabError: TensorFlow is not installed, or the network has what TFLite has not.
    """
    tensorflow = import_tensorflow()
    shape = program.input_shape()
    traced = jax.make_jaxpr(program.function)(
        jax.ShapeDtypeStruct(shape, program.options.input_dtype)
    )
    # TFLite gives results in the order of names; there is one.
    name = "class_map" if program.options.argmax else "logits"

    def network(image: Any) -> dict[str, Any]:
        return {name: translate(traced, image, TensorFlowWriter(tensorflow))}

    specification = tensorflow.TensorSpec(
        [program.options.batch, *shape[1:]], program.options.input_dtype.name, name="image"
    )
    module = tensorflow.Module()
    module.network = tensorflow.function(network, input_signature=[specification], autograph=False)
    return tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [module.network.get_concrete_function()], module
    )


def _samples(program: Program, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yields what the network takes, an image each."""
    metadata, size = describe(program), program.own_size
    fill = program.predictor.model.architecture.mean_pixel
    for image in images:
        padded = pad(fitted(image, size), size, fill)
        yield [metadata.normalized(padded[None])]


def _with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Returns the file with an entry of metadata more."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata.to_json().encode())
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def read_tflite_metadata(path: str | Path) -> Metadata:
    """Reads the metadata of a file that `write_tflite` wrote; needs no TensorFlow.

    Raises:
      DeepLabError: the file is another.
    """
    import tflite

    content = Path(path).read_bytes()
    if content[4:8] != IDENTIFIER:
        raise DeepLabError(f"{path} is no TFLite file")
    model = tflite.Model.GetRootAs(content, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == KEY.encode():
            return parse_metadata(
                model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), where=str(path)
            )
    raise DeepLabError(f"{path} has no metadata of deeplab_jax; deeplab-jax export writes them")
