"""usage: deeplab-jax evaluate --model=M --dataset=NAME --split=S --data_dir=DIR [--flag=value …]

Evaluates a trained model on a split of a prepared dataset, and prints mean IoU and other metrics.
Whole images are predicted at one scale, unless flags select another strategy. M is the workdir of a
training run, a model directory, or the name of pretrained weights. --output writes metrics.json,
confusion_matrix.png and contact_sheet.png.

With --calibration, the command also measures how well the class probabilities agree with the truth.
It prints the expected calibration error (ECE) of the confidence, the mean ECE over the classes
(classwise ECE), the Brier score (0 to 2) and the negative log-likelihood (NLL). --output then also
writes reliability.png. The command `calibrate` improves these values.

With --uncertainty, the command also measures how well the uncertainty of a pixel predicts that its
predicted class is wrong. It prints AUROC and AUPR. Random uncertainties have an AUROC of 0.5, and
an AUPR equal to the fraction of wrong pixels. --output then also writes uncertainty.png.

With --table, the command compares inference options. It adds --output_stride, --scales, --flip and
--crf one after the other and prints how much each changes the metrics, with a 95 % interval. If
none of these flags is given, the table has the rows of table 6 of DeepLab v3 (output strides 16 and
8, six scales, flips) and, if the images are 8-bit RGB, one row for the CRF. --output then writes
only strategies.json.

With --class_map or --classes, the metrics are computed over the scored classes, which these flags
define, instead of the classes of the model. Pixels whose true class is not scored are void. At all
other pixels, a predicted class that is not scored counts as wrong.

examples:
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split=val --data_dir=data \\
      --output=runs/camvid/val
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split=val --data_dir=data \\
      --output_stride=8 --scales=0.5,0.75,1,1.25 --flip --crf --table
  deeplab-jax evaluate --model=runs/camvid --dataset=camvid --split='val[50%:]' \\
      --data_dir=data --calibration --output=runs/camvid/calibration
  deeplab-jax evaluate --model=deeplabv3_mobilenetv2_voc --dataset=folder --data_dir=data \\
      --class_map=vehicles.txt
      vehicles.txt contains lines such as `bus: vehicle`
"""

from typing import Any

import deeplab_jax
from deeplab_jax import data, inference
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.cli.job import define_hosts, joined_job
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.reporter import Reporter


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define_inference()
    flags.define_dataset("val")
    flags.define("output", None, "Directory for the metrics and pictures.")
    flags.define(
        "trimap",
        None,
        "Widths in pixels of bands around void pixels (trimaps), separated by commas, as in "
        "1,5,10. The command also prints mean IoU within each band.",
    )
    flags.define("calibration", False, "Also measure the calibration of the class probabilities.")
    flags.define(
        "calibration_bins",
        15,
        "Number of equally wide confidence bins that are used to compute the calibration errors.",
        least=1,
    )
    flags.define(
        "uncertainty",
        list,
        "Uncertainty estimates to evaluate, separated by commas, as in confidence,entropy. Legal "
        "estimates are confidence, entropy, dropout (MC dropout) and scales (variance over scales "
        "and flips).",
    )
    flags.define("dropout_samples", 8, "Number of dropout masks of MC dropout.", least=2)
    flags.define(
        "class_map",
        None,
        "File that assigns classes of the model or of the dataset to the classes to score: lines "
        '`from: to`, or JSON {"from": "to"}. Without --class_map and --classes, the dataset must '
        "have the same classes as the model.",
    )
    flags.define(
        "classes",
        list,
        "Names of the classes to score, separated by commas, as in car,bus (default: all classes).",
    )
    flags.define(
        "table",
        False,
        "Print a table in which each row adds one inference option to the row above.",
    )
    flags.define("spatial", 1, "Number of devices over which image rows are sharded.", least=1)
    define_hosts(flags)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Evaluates a model, and prints the table of metrics and the directory of the written files."""
    flags.refuse("evaluate", paths, "give a dataset as --dataset")
    flags.require("model", "dataset", "split", "data_dir")
    widths = flags.numbers("trimap", int, "1,5,10")
    if flags.table and widths:
        raise DeepLabError("--trimap cannot be combined with --table; omit one of them")
    if flags.table and flags.calibration:
        raise DeepLabError("--calibration cannot be combined with --table; omit one of them")
    if flags.table and flags.uncertainty:
        raise DeepLabError("--uncertainty cannot be combined with --table; omit one of them")
    if not flags["calibration_bins"].using_default_value and not flags.calibration:
        raise DeepLabError("--calibration_bins requires --calibration; give both or omit both")
    has_dropout = "dropout" in (flags.uncertainty or ())
    if not flags["dropout_samples"].using_default_value and not has_dropout:
        raise DeepLabError(
            "--dropout_samples requires --uncertainty=dropout; give both or omit both"
        )
    if flags.spatial > 1 and flags.tile:
        raise DeepLabError(
            "--spatial shards the rows of whole images and cannot be combined with --tile; omit "
            "one of them"
        )
    options, settings = flags.inference_options(), flags.split_settings()
    flags.check_sources()
    with joined_job(flags, console) as reporter:
        text = _measure(flags, options, settings, widths, reporter)
    # Only the first process prints.
    if reporter is console:
        console.print(text)
        if flags.output:
            written = "strategies.json is" if flags.table else "metrics and pictures are"
            console.message(f"{written} in {flags.output}")


def _measure(
    flags: Flags,
    options: "inference.InferenceOptions",
    settings: dict[str, Any],
    widths: tuple[int, ...],
    reporter: Reporter,
) -> str:
    """Evaluates the model, and returns the table of its metrics as text.

    Args:
      flags: flags of the command. With --table, the table compares inference options.
      options: inference options that the flags select.
      settings: --size, --batch_size, --workers and --limit as keyword arguments of `evaluate`.
      widths: widths of the trimap bands, in pixels.
      reporter: receives progress events.
    """
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.evaluation import table
    from deeplab_jax.parallel import make_mesh

    predictor, dataset = flags.load_predictor(reporter), flags.open_split()
    predictor.source += _chosen_weights(flags)
    mesh = make_mesh(spatial=flags.spatial)
    settings = settings | {"mesh": mesh, "output": flags.output, "reporter": reporter}
    settings |= {"class_map": flags.class_map, "classes": flags.classes}
    if flags.table:
        return _compare(predictor, dataset, options, settings)
    settings |= {"uncertainty": tuple(flags.uncertainty or ())}
    settings |= {"dropout_samples": flags.dropout_samples}
    settings |= {"calibration_bins": flags.calibration_bins if flags.calibration else None}
    return table(
        deeplab_jax.evaluate(predictor, dataset, options=options, trimap_widths=widths, **settings)
    )


def _chosen_weights(flags: Flags) -> str:
    """Returns a text about --checkpoint and --ema, which the report adds to the name of the model.

    The text is empty if neither flag is given, or if the model is not a workdir: a model directory
    has only one set of variables, so both flags are ignored.
    """
    from deeplab_jax.checkpointing import CHECKPOINTS
    from deeplab_jax.pretrained.hub import is_hub_address

    if is_hub_address(flags.model) or not (as_path(flags.model) / CHECKPOINTS).is_dir():
        return ""
    chosen = [] if flags["checkpoint"].using_default_value else [f"checkpoint {flags.checkpoint}"]
    if flags.ema is not None:
        chosen.append("moving average" if flags.ema else "no moving average")
    return f" ({', '.join(chosen)})" if chosen else ""


def _compare(
    predictor: "inference.Predictor",
    dataset: "data.Dataset",
    options: "inference.InferenceOptions",
    settings: dict[str, Any],
) -> str:
    from deeplab_jax import evaluation

    steps = evaluation.strategy_steps(options)
    if len(steps) == 1:
        steps = evaluation.papers_steps(options)
        # `compare_strategies` refuses models that classify whole images.
        if isinstance(predictor, inference.Predictor) and not predictor.bands.are_rgb:
            del steps["+ CRF"]
    rows = evaluation.compare_strategies(predictor, dataset, steps, **settings)
    last = evaluation.settings_lines(rows[-1]["settings"])
    return "\n".join([evaluation.comparison_table(rows), "", "settings of the last row:", *last])
