"""usage: python -m experiments.compare --models=NAME=MODEL,… --dataset=NAME --data_dir=DIR

Shows models side by side on the same images: image, truth and each model's classes, error maps,
bars by class, confusion matrices, curves along outlines, speed and accuracy. The page is one HTML
file that opens anywhere. A model is a workdir, a model directory or a published name. --classes=PNG
writes truth and classes as one picture without the images, for where these may not be shown.

example:
  python -m experiments.compare --models=v1=runs/v1,v2=runs/v2,v3=runs/v3,v3+=runs/v3plus \\
      --dataset=camvid --split=val --data_dir=data --output=runs/comparison.html
"""

import pathlib
import sys

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from experiments import commands


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Declares the flags."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_list("models", [], "Models as NAME=MODEL,…; a MODEL may contain =.", **own)
    absl_flags.DEFINE_string(
        "checkpoint", "last", "Checkpoint of a workdir: best, last or a step.", **own
    )
    absl_flags.DEFINE_string("dataset", None, "Name of a prepared dataset.", **own)
    absl_flags.DEFINE_string("split", "val", "Split of the dataset to evaluate on.", **own)
    absl_flags.DEFINE_string("data_dir", "data", "Directory of the prepared datasets.", **own)
    absl_flags.DEFINE_string("output", "comparison.html", "Path of the HTML page.", **own)
    absl_flags.DEFINE_string(
        "classes", None, "Path of a PNG of ground truth and predicted classes only.", **own
    )
    absl_flags.DEFINE_string("title", "DeepLab, side by side", "Title of the HTML page.", **own)
    absl_flags.DEFINE_integer("images", 4, "Number of images to show.", lower_bound=1, **own)
    absl_flags.DEFINE_integer(
        "limit", None, "Maximum number of images, from the start of the split.", **own
    )
    absl_flags.DEFINE_integer("batch_size", 4, "Number of images per batch.", lower_bound=1, **own)
    absl_flags.DEFINE_string(
        "trimap", "1,2,5,10,20,40", "Widths of trimap bands, in pixels.", **own
    )
    flags.define_inference()


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Measures the models and writes the page."""
    if paths:
        raise DeepLabError(f"compare takes no argument {paths[0]!r}; give models as --models")
    flags.require("models", "dataset")
    references = parse_models(flags.models)
    options, widths = flags.inference_options(), flags.numbers("trimap", int, "1,5,10")
    # Imported late, so that --help and mistakes answer at once.
    import deeplab_jax
    from deeplab_jax.data import open_dataset
    from deeplab_jax.files import replacing
    from experiments.comparison import class_maps, compare, html_page

    dataset = open_dataset(flags.dataset, flags.data_dir, flags.split)
    predictors = {
        name: deeplab_jax.load(path, flags.checkpoint, reporter=console).with_options(options)
        for name, path in references.items()
    }
    comparison = compare(
        predictors,
        dataset,
        num_images=flags.images,
        trimap_widths=widths,
        limit=flags.limit,
        batch_size=flags.batch_size,
        reporter=console,
    )
    page = html_page(comparison, flags.title, f"python -m experiments.compare {_arguments()}")
    write_text(pathlib.Path(flags.output), page)
    if flags.classes:
        with replacing(pathlib.Path(flags.classes)) as temporary:
            temporary.write_bytes(class_maps(comparison))
    console.message(f"{flags.output}: {len(page) / 2**20:.1f} MiB, one file")


def parse_models(texts: list[str]) -> dict[str, str]:
    """Returns model references by the name they are shown under.

    Raises:
      DeepLabError: a text is no NAME=MODEL, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, model = text.partition("=")
        if not (name and equals and model):
            raise DeepLabError(f"--models: {text!r} is not NAME=MODEL, as in v3=runs/v3")
        if name in found:
            raise DeepLabError(f"--models names {name!r} twice")
        found[name] = model
    return found


def _arguments() -> str:
    return " ".join(sys.argv[1:])


if __name__ == "__main__":
    commands.start("experiments.compare", __doc__, define_flags, run)
