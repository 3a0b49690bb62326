"""usage: deeplab-jax inspect ARCH [--backbone=B] [--set=KEY=VALUE,…] [--size=513x513] [--json]
       deeplab-jax inspect --model=M [--size=513x513] [--json]
       deeplab-jax inspect --set | --config[=SECTION]

Prints the layers, parameters, multiply-adds, receptive field and feature maps of a network at an
image size. ARCH is an architecture that `deeplab-jax models` lists. M is the workdir of a training
run, a model directory, or the name of pretrained weights. The command takes about a second, because
it traces the network and does not run it.

Set keywords of the network with --set=KEY=VALUE,…; write tuples in brackets. --set without a value
prints the type, default and description of every keyword. --config without a value prints the type,
default and description of every config field.

Multiply-adds are also printed in TensorFlow's convention, which the tables of the papers use. In
this convention, the output of an atrous convolution is padded to a multiple of the rate, and the
padding is counted. The outputs of depthwise and other grouped convolutions are not padded.

examples:
  deeplab-jax inspect --config=loss
  deeplab-jax inspect deeplab_v3plus --backbone=xception_65
  deeplab-jax inspect deeplab_v3 --set='output_stride=8,atrous_rates=(12,24,36)' --layers
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import rich.table

from deeplab_jax import checkpointing, models, pretrained
from deeplab_jax.architecture_fields import ArchitectureFields, Shorthands
from deeplab_jax.cli.console import Console, make_table
from deeplab_jax.cli.flags import MODEL_HELP, Flags, parse_keywords, parse_size
from deeplab_jax.declarations import declaration, default_text, help_text, kind
from deeplab_jax.errors import DeepLabError, check_name, unknown_name
from deeplab_jax.named_architectures import BACKBONE_KEYWORDS, check_names, list_models

if TYPE_CHECKING:
    from deeplab_jax.models.summary import LayerSummary

# Number of leading components of a layer's path that identify a block or a part of the head.
UNIT_DEPTH = 2
TITLES = ("layer", "kernel", "rate", "output", "parameters", "MMACs")
# Value of --set and --config if they are given without a value, which prints descriptions.
HELP = "help"


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define("model", None, f"{MODEL_HELP} Replaces the argument ARCH.")
    flags.define("backbone", None, "Backbone of the network (default: the backbone of ARCH).")
    flags.define(
        "set",
        None,
        "Keywords of the network as KEY=VALUE, separated by commas. --set without a value prints a "
        "description of every keyword.",
        bare=HELP,
    )
    flags.define(
        "config",
        None,
        "Section or field of the config whose description is printed. --config without a value "
        "prints a description of every field.",
        bare=HELP,
    )
    flags.define(
        "num_classes", int, "Number of classes (default: the number of classes of ARCH).", least=1
    )
    flags.define("size", "513x513", "Height x width of the image, in pixels.")
    flags.define("layers", False, "Show every convolution and every feature map.")
    flags.define("json", False, "Print JSON instead of tables.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prints the summary of a network, or the descriptions of keywords or config fields."""
    if flags.config or flags.set == HELP:
        unknown = [path for path in paths if path not in list_models()]
        if unknown:
            raise DeepLabError(
                f"unexpected argument {unknown[0]!r}; the value of a flag must follow an equals "
                "sign, as in --config=loss and --set=output_stride=8"
            )
        for line in _described(flags):
            console.print(line)
        return
    size = parse_size(flags.size)
    model = _described_model(flags, paths, console) if flags.model else _named_model(flags, paths)
    summary = models.summarize(model, size)
    if flags.json:
        console.print(json.dumps(summary.describe(), indent=2))
        return
    console.print(make_table(TITLES, _rows(summary.layers, flags.layers), right=2))
    for lines in (_totals(summary), _endpoints(summary, flags.layers)):
        console.print("")
        console.print(_pairs(lines))


def _described(flags: Flags) -> Iterator[str]:
    """Yields a line for each keyword of the network, or for each config field in --config.

    The line contains name, description, type, legal values and default.

    Raises:
      DeepLabError: the section or field that --config names does not exist.
    """
    # The import is local, because the summary of a network does not need the config.
    from deeplab_jax.config_fields import declared_fields, model_fields

    if flags.config:
        model = ((f"model.{name}", owner, field) for name, owner, field in model_fields())
        fields = [*declared_fields(), *model]
    else:
        owners = (ArchitectureFields, Shorthands)
        fields = [
            (field.name, owner, field) for owner in owners for field in dataclasses.fields(owner)
        ]
    wanted = flags.config if flags.config not in (None, HELP) else ""
    shown = [row for row in fields if f"{row[0]}.".startswith(f"{wanted}." if wanted else "")]
    if not shown:
        sections = {name.rpartition(".")[0] for name, *_ in fields} - {""}
        names = sorted(sections | {name for name, *_ in fields})
        raise unknown_name("config section or field", wanted, names)
    for name, owner, field in shown:
        facts = [kind(owner, field).__name__, f"default: {default_text(field)}"]
        legal = ", ".join(map(str, declaration(field).legal))
        facts[1:1] = [f"legal: {legal}"] if legal else []
        yield f"{name}: {help_text(field)} [{'; '.join(facts)}]"


def _described_model(flags: Flags, paths: list[str], console: Console) -> "models.DeepLab":
    keywords = ("backbone", "set", "num_classes")
    given = paths + [f"--{name}" for name in keywords if flags[name].value is not None]
    if given:
        raise DeepLabError(f"--model defines the whole network; omit {', '.join(given)}")
    description = checkpointing.read_description(pretrained.locate(flags.model, console))
    if description.task == checkpointing.CLASSIFICATION:
        backbone = description.overrides["backbone"]
        raise DeepLabError(
            f"{flags.model} classifies whole images, but only segmentation networks can be "
            "inspected; to inspect a segmentation network with the same backbone, give an "
            f"architecture and --backbone={backbone}"
        )
    return description.create_model()


def _named_model(flags: Flags, paths: list[str]) -> "models.DeepLab":
    if len(paths) != 1:
        raise DeepLabError("give one architecture to inspect, or --model; --help shows an example")
    keywords = parse_keywords(flags.set or "")
    for name in ("backbone", "num_classes"):
        if flags[name].value is None:
            continue
        if name in keywords:
            raise DeepLabError(f"{name} is given twice, by --{name} and in --set; omit one of them")
        keywords[name] = flags[name].value
    check_names(paths[0], keywords)
    backbone = keywords.get("backbone")
    if backbone is not None:
        check_name("backbone", str(backbone), BACKBONE_KEYWORDS)
    return models.create_model(paths[0], **keywords)


def _rows(layers: Iterable["LayerSummary"], every: bool) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each table row.

    Args:
      layers: convolutions of the network.
      every: False: one row per block. True: one row per convolution, below a row with the path of
        the module that contains the convolution.
    """
    if not every:
        for name, group in itertools.groupby(layers, _unit):
            yield name, *_cells(list(group))
        return
    for parent, group in itertools.groupby(layers, lambda layer: layer.name.rpartition("/")[0]):
        if parent:
            yield (parent,)
        for layer in group:
            indent = "  " if parent else ""
            yield indent + layer.name.rpartition("/")[2], *_cells([layer])


def _unit(layer: "LayerSummary") -> str:
    return "/".join(layer.name.split("/")[:UNIT_DEPTH])


def _cells(layers: list["LayerSummary"]) -> tuple[str, ...]:
    return (
        _spread("×".join(map(str, layer.kernel)) for layer in layers),
        _spread(_by_axis(layer.rate) for layer in layers if max(layer.kernel) > 1),
        "×".join(map(str, layers[-1].output)),
        f"{sum(layer.parameters for layer in layers):,}",
        f"{sum(layer.macs for layer in layers) / 1e6:,.1f}",
    )


def _by_axis(values: tuple[int, int]) -> str:
    return str(values[0]) if values[0] == values[1] else "×".join(map(str, values))


def _spread(texts: Iterable[str]) -> str:
    """Joins the distinct texts of several layers with commas, for one table cell."""
    return ", ".join(dict.fromkeys(texts))


def _totals(summary: "models.ModelSummary") -> dict[str, str]:
    return {
        "parameters": f"{summary.parameters:,}",
        "multiply-adds": f"{summary.macs / 1e9:,.3f} billion",
        "… in TensorFlow's convention": f"{summary.macs_tf_convention / 1e9:,.3f} billion",
        "output stride": f"{summary.output_stride} pixels",
        "receptive field": f"{summary.receptive_field:,} pixels, without image pooling",
    }


def _endpoints(summary: "models.ModelSummary", every: bool) -> dict[str, str]:
    """Returns the shape of each feature map by name.

    Unless `every` is set, feature maps inside a block (with `/` in their name) are left out.
    """
    return {
        f"endpoint {name}": "×".join(map(str, shape))
        for name, shape in summary.endpoints.items()
        if every or "/" not in name
    }


def _pairs(lines: dict[str, str]) -> rich.table.Table:
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    for cells in lines.items():
        table.add_row(*cells)
    return table
