"""usage: deeplab-jax inspect ARCH [--backbone=B] [--set=KEY=VALUE,…] [--size=513x513] [--json]
       deeplab-jax inspect --model=M [--size=513x513] [--json]

Shows what a network costs and sees at an image size: its convolutions, parameters, multiply-adds,
receptive field and inner maps. ARCH is an architecture that `deeplab-jax models` lists, M the
workdir of a training run, a model directory, or the name of pretrained weights. Nothing is
computed, so it takes about a second.

--set takes every keyword of an architecture; tuples take brackets. Multiply-adds in TensorFlow's
convention are those of the papers' tables: a regular atrous convolution counts its map padded up
to multiples of the rate.

examples:
  deeplab-jax inspect deeplab_v3plus --backbone=xception_65
  deeplab-jax inspect deeplab_v3 --set='output_stride=8,atrous_rates=(12,24,36)' --layers
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import rich.box
import rich.table

from deeplab_jax import checkpointing, models, pretrained
from deeplab_jax.architecture import BACKBONE_KEYWORDS, check_names
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import MODEL_HELP, Flags, parse_keywords, parse_size
from deeplab_jax.errors import DeepLabError, unknown_name

if TYPE_CHECKING:
    from deeplab_jax.models.summary import LayerSummary

# Of a path's components, those that name a block of the backbone or a part of the head.
UNIT_DEPTH = 2


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define("model", None, f"{MODEL_HELP} Instead of ARCH.")
    flags.define("backbone", None, "Backbone instead of the default one.")
    flags.define("set", None, "Further keywords: KEY=VALUE,KEY=VALUE…")
    flags.define("num_classes", None, "Logits a pixel.", kind=int, least=1)
    flags.define("size", "513x513", "Height x width of the image.")
    flags.define("layers", False, "Show every convolution and every inner map.")
    flags.define("json", False, "Print JSON instead of tables.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prints the summary of a network."""
    size = parse_size(flags.size)
    model = _described_model(flags, paths, console) if flags.model else _named_model(flags, paths)
    summary = models.summarize(model, size)
    if flags.json:
        console.print(json.dumps(summary.describe(), indent=2))
        return
    console.print(_layer_table(_rows(summary.layers, flags.layers)))
    console.print("")
    console.print(_totals(summary))
    console.print("")
    console.print(_endpoint_table(summary, flags.layers))


def _described_model(flags: Flags, paths: list[str], console: Console) -> "models.DeepLab":
    keywords = ("backbone", "set", "num_classes")
    given = paths + [f"--{name}" for name in keywords if flags[name].value is not None]
    if given:
        raise DeepLabError(f"--model says all of the network; leave out {', '.join(given)}")
    description = checkpointing.read_description(pretrained.locate(flags.model, console))
    if description.task == checkpointing.CLASSIFICATION:
        backbone = description.overrides["backbone"]
        raise DeepLabError(
            f"{flags.model} classifies whole images; give an architecture with "
            f"--backbone={backbone} to see a segmentation network on its backbone"
        )
    return description.create_model()


def _named_model(flags: Flags, paths: list[str]) -> "models.DeepLab":
    if len(paths) != 1:
        raise DeepLabError("inspect takes one architecture, or --model; --help shows an example")
    keywords = parse_keywords(flags.set or "")
    for name in ("backbone", "num_classes"):
        if flags[name].value is None:
            continue
        if name in keywords:
            raise DeepLabError(f"{name} is given twice: by --{name} and in --set")
        keywords[name] = flags[name].value
    check_names(paths[0], keywords)
    backbone = keywords.get("backbone")
    if backbone is not None and backbone not in BACKBONE_KEYWORDS:
        raise unknown_name("backbone", str(backbone), BACKBONE_KEYWORDS)
    return models.create_model(paths[0], **keywords)


def _rows(layers: Iterable["LayerSummary"], every: bool) -> Iterator[tuple[str, ...]]:
    """Yields the cells of the table: a row a unit, or a row a convolution below its parent's."""
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
    """Returns the different texts in the order of their first appearance."""
    return ", ".join(dict.fromkeys(texts))


def _layer_table(rows: Iterable[tuple[str, ...]]) -> rich.table.Table:
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("layer", overflow="fold")
    for title in ("kernel", "rate", "output"):
        table.add_column(title)
    for title in ("parameters", "MMACs"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _totals(summary: "models.ModelSummary") -> rich.table.Table:
    lines: dict[str, Any] = {
        "parameters": f"{summary.parameters:,}",
        "multiply-adds": f"{summary.macs / 1e9:,.3f} billion",
        "… in TensorFlow's convention": f"{summary.macs_tf_convention / 1e9:,.3f} billion",
        "output stride": f"{summary.output_stride} pixels",
        "receptive field": f"{summary.receptive_field:,} pixels, image pooling left out",
    }
    return _pairs(lines)


def _endpoint_table(summary: "models.ModelSummary", every: bool) -> rich.table.Table:
    """The inner maps; without `every` only those of whole blocks."""
    shown = {
        f"endpoint {name}": "×".join(map(str, shape))
        for name, shape in summary.endpoints.items()
        if every or "/" not in name
    }
    return _pairs(shown)


def _pairs(lines: dict[str, str]) -> rich.table.Table:
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    for cells in lines.items():
        table.add_row(*cells)
    return table
