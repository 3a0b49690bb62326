"""usage: deeplab-jax convert SOURCE --output=MODEL_DIR [--flag=value …]

Converts published weights into a model directory. SOURCE is a file (TFLite, Core ML, PyTorch,
safetensors, frozen TensorFlow graph), the path prefix of a TensorFlow checkpoint
(model.ckpt-30000), or a directory or archive that contains such a file or checkpoint. SOURCE can
also be a name that `deeplab-jax models` lists; the weights are then downloaded.

The architecture is detected from the names of the arrays; --architecture and --set override it. The
command prints how many arrays each part of the network uses, how many batch normalizations were
already folded into convolutions, and which arrays are unused and why. If an array is missing or has
an unexpected shape, the command fails and writes nothing.

examples:
  deeplab-jax convert deeplabv3_257_mv_gpu.tflite --output=models/voc
  deeplab-jax convert deeplabv3_mobilenetv2_voc --output=models/voc --set=output_stride=8
"""

import collections
from collections.abc import Iterator

from deeplab_jax import checkpointing, data, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_keywords
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, check_new_directory

# Number of unused arrays that are printed per reason without --list.
SHOWN = 3


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define("output", None, "Model directory to write. It must be empty or not exist yet.")
    flags.define(
        "architecture",
        None,
        "Architecture of the network (default: detected from the names of the arrays in SOURCE).",
    )
    flags.define(
        "set",
        None,
        "Keywords of the network as KEY=VALUE, separated by commas; `deeplab-jax inspect --set` "
        "lists them.",
    )
    flags.define(
        "classes", None, "File of class names in label order: one name per line, or a JSON list."
    )
    flags.define(
        "averages",
        True,
        "For a TensorFlow checkpoint: use the moving average of each variable that has one, "
        "instead of the variable.",
    )
    flags.define("list", False, "Print the names of all arrays that the network does not use.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Converts weights, writes the model directory, and prints how the arrays are used."""
    if len(paths) != 1:
        raise DeepLabError("give one SOURCE to convert; --help shows an example")
    flags.require("output")
    overrides = parse_keywords(flags.set or "")
    output = as_path(flags.output)
    check_new_directory(output)
    names = data.read_class_names(as_path(flags.classes)) if flags.classes else None
    conversion = pretrained.convert_source(
        paths[0],
        console,
        architecture=flags.architecture,
        overrides=overrides,
        class_names=names,
        prefer_averages=flags.averages,
    )
    checkpointing.write_model(output, conversion.description, conversion.variables)
    for line in account(conversion, every=flags.list):
        console.print(line)
    console.print(f"the model is in {output}")


def account(conversion: "pretrained.Conversion", *, every: bool) -> Iterator[str]:
    """Yields lines that describe how the arrays of the converted file are used.

    Args:
      conversion: the conversion to describe.
      every: True: list all unused arrays. False: list only a few unused arrays for each reason
        why they are unused.
    """
    description, assignment = conversion.description, conversion.assignment
    keywords = ", ".join(f"{name}={value}" for name, value in description.overrides.items())
    yield f"network: {description.architecture} with {keywords}"
    yield f"naming convention of the arrays: {conversion.convention}"
    if conversion.if_tensorflow:
        other = ",".join(f"{name}={value}" for name, value in conversion.if_tensorflow.items())
        yield (
            "assumed: PyTorch's padding, which the arrays do not show; if timm's name of the "
            f"network begins with tf_, convert with --set={other}"
        )
    if description.inference_size:
        height, width = description.inference_size
        yield f"inference size: {height}×{width}"
    parts = collections.Counter(path[1] for path in assignment.sources)
    filled = ", ".join(f"{part} {count}" for part, count in parts.items())
    yield f"{len(assignment.sources)} arrays are used: {filled}"
    if assignment.folded:
        yield f"{len(assignment.folded)} batch normalizations are folded into convolutions"
    groups = collections.defaultdict(list)
    for name, reason in assignment.unused.items():
        groups[reason].append(name)
    for reason, names in groups.items():
        shown = names if every or len(names) <= SHOWN else [*names[:SHOWN], "… (--list prints all)"]
        yield f"{len(names)} unused ({reason}): {', '.join(shown)}"
    if not groups:
        yield "no array is unused"
