"""usage: python -m experiments.compare --models=NAME=MODEL,… --dataset=NAME --data_dir=DIR

Compares models on the same images and writes an HTML page, one file with embedded pictures. The
page shows predictions, error maps, IoU per class, confusion matrices, mean IoU near boundaries, and
speed against accuracy. A MODEL is a workdir, a model directory or the name of pretrained weights.
--classes=PNG also writes a picture of ground truth and predictions without the images, for datasets
whose images must not be published.

example:
  python -m experiments.compare --models=v1=runs/v1,v2=runs/v2,v3=runs/v3,v3+=runs/v3plus \\
      --dataset=camvid --split=val --data_dir=data --output=runs/comparison.html
"""

import shlex
import sys

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, check_output_file, replacing, write_text
from experiments import commands


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command `experiments.compare`."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_list(
        "models",
        [],
        "Models to compare, as NAME=MODEL, separated by commas; the page shows NAME.",
        **own,
    )
    absl_flags.DEFINE_string(
        "checkpoint",
        "last",
        "Checkpoint to load from a workdir: best, last or the number of a training step.",
        **own,
    )
    absl_flags.DEFINE_string("dataset", None, "Name of a prepared dataset.", **own)
    absl_flags.DEFINE_string("split", "val", "Split of the dataset to evaluate on.", **own)
    absl_flags.DEFINE_string("data_dir", "data", "Directory of the prepared datasets.", **own)
    absl_flags.DEFINE_string("output", "comparison.html", "Path of the HTML page.", **own)
    absl_flags.DEFINE_string(
        "classes",
        None,
        "Path of a PNG file to write, with ground truth and predictions but without the images.",
        **own,
    )
    absl_flags.DEFINE_string("title", "DeepLab, side by side", "Title of the HTML page.", **own)
    absl_flags.DEFINE_integer(
        "images", 4, "Number of images to show, evenly spaced over the split.", lower_bound=1, **own
    )
    absl_flags.DEFINE_integer(
        "limit",
        None,
        "Maximum number of images, from the start of the split (default: all).",
        lower_bound=1,
        **own,
    )
    absl_flags.DEFINE_integer("batch_size", 4, "Number of images per batch.", lower_bound=1, **own)
    absl_flags.DEFINE_string(
        "trimap",
        "1,2,5,10,20,40",
        "Widths in pixels of bands around void pixels (trimaps), separated by commas.",
        **own,
    )
    flags.define_inference()


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Evaluates the models and writes the comparison page."""
    if paths:
        raise DeepLabError(f"compare takes no argument {paths[0]!r}; give models as --models")
    flags.require("models", "dataset")
    references = parse_models(flags.models)
    options, widths = flags.inference_options(), flags.numbers("trimap", int, "1,5,10")
    for path in filter(None, (flags.output, flags.classes)):
        # The evaluations take long, so their results must not be lost.
        check_output_file(as_path(path))
    # Imported here so that --help and wrong flags do not wait for JAX.
    import deeplab_jax
    from deeplab_jax.data import open_dataset
    from experiments.comparison import class_maps, compare, html_page

    dataset = open_dataset(flags.dataset, flags.data_dir, flags.split)
    predictors = {
        name: deeplab_jax.load(path, flags.checkpoint, reporter=console)
        for name, path in references.items()
    }
    comparison = compare(
        predictors,
        dataset,
        options=options,
        num_images=flags.images,
        trimap_widths=widths,
        limit=flags.limit,
        batch_size=flags.batch_size,
        reporter=console,
    )
    command = f"python -m experiments.compare {shlex.join(sys.argv[1:])}"
    page = html_page(comparison, flags.title, command)
    write_text(as_path(flags.output), page)
    if flags.classes:
        with replacing(as_path(flags.classes)) as temporary:
            temporary.write_bytes(class_maps(comparison))
    console.message(f"{flags.output}: {len(page) / 2**20:.1f} MiB")


def parse_models(texts: list[str]) -> dict[str, str]:
    """Parses texts NAME=MODEL and returns the models by name.

    Raises:
      DeepLabError: a text is not NAME=MODEL, or a name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        if not (name and equals and model):
            raise DeepLabError(f"--models: {text!r} must be NAME=MODEL, as in v3=runs/v3")
        if name in found:
            raise DeepLabError(f"--models contains the name {name!r} twice; names must be unique")
        found[name] = model
    return found


if __name__ == "__main__":
    commands.start("experiments.compare", __doc__, define_flags, run)
