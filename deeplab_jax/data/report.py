"""Summary and report of a prepared dataset."""

from collections.abc import Mapping, Sequence

from deeplab_jax.data.preparation import Preparation
from deeplab_jax.data.statistics import SplitStatistics

# Classes that a line lists before it says "…".
SHOWN_CLASSES = 10


def render(preparation: Preparation) -> str:
    """Returns the report as text for a terminal."""
    names, statistics = preparation.class_names, preparation.statistics
    sections = [f"{preparation.directory}", _counts(statistics), _histogram(names, statistics)]
    doubts = [*class_doubts(names, statistics), *preparation.notes]
    if doubts:
        sections.append("check these:\n" + "\n".join(f"  {line}" for line in doubts))
    if preparation.left_out:
        listed = "\n".join(f"  {reason}" for reason in preparation.left_out)
        sections.append(f"left out ({len(preparation.left_out)}):\n{listed}")
    return "\n\n".join(sections)


def summary(preparation: Preparation) -> str:
    """Returns the number of images, and what a user should check, as text for a terminal."""
    statistics = preparation.statistics
    counts = [f"{values.num_images} {split}" for split, values in statistics.items()]
    lines = [
        f"{preparation.directory}: {', '.join(counts)} images",
        *class_doubts(preparation.class_names, statistics),
        *preparation.notes,
    ]
    if preparation.left_out:
        lines.append(f"{len(preparation.left_out)} examples left out; the first: ")
        lines[-1] += preparation.left_out[0]
    return "\n".join(lines)


def class_doubts(names: Sequence[str], statistics: Mapping[str, SplitStatistics]) -> list[str]:
    """Returns a line for the classes without a pixel, and for each that fills a whole split."""
    lines, absent_in = [], {}
    for split, values in statistics.items():
        pixels = values.class_pixels
        absent_in[split] = [name for name, count in zip(names, pixels, strict=True) if not count]
        if not sum(pixels):
            lines.append(f"every pixel of {split} is void")
        lines += [
            f"class {name!r} fills 100 % of {split}"
            for name, count in zip(names, pixels, strict=True)
            if count and count == sum(pixels)
        ]
    everywhere = [name for name in names if all(name in absent for absent in absent_in.values())]
    if everywhere:
        lines.append(f"no pixel in any split: {_listed(everywhere, len(names))}")
    for split, absent in absent_in.items():
        elsewhere = [name for name in absent if name not in everywhere]
        if elsewhere:
            lines.append(f"no pixel in {split}: {_listed(elsewhere, len(names))}")
    return lines


def _listed(absent: Sequence[str], num_classes: int) -> str:
    more = ", …" if len(absent) > SHOWN_CLASSES else ""
    shown = ", ".join(map(repr, absent[:SHOWN_CLASSES]))
    return f"{len(absent)} of {num_classes} classes: {shown}{more}"


def _counts(statistics: dict[str, SplitStatistics]) -> str:
    lines = [
        f"{'split':<12}{'images':>8}  {'smallest':>11}{'median':>11}{'largest':>11}{'void':>8}"
    ]
    for split, values in statistics.items():
        sizes = "".join(f"{f'{height}x{width}':>11}" for height, width in values.sizes)
        void = values.void_pixels / max(1, values.void_pixels + sum(values.class_pixels))
        lines.append(f"{split:<12}{values.num_images:>8}  {sizes}{void:>8.1%}")
    return "\n".join(lines)


def _histogram(names: tuple[str, ...], statistics: dict[str, SplitStatistics]) -> str:
    """Returns the share of each class by split, and weights from the first split, train."""
    width = max(len("class"), *map(len, names)) + 2
    header = "".join(f"{split:>11}" for split in statistics)
    first, *_ = statistics.values()
    lines = [f"{'':>5} {'class':<{width}}{header}{'weight':>9}"]
    for index, (name, weight) in enumerate(zip(names, first.class_weights(), strict=True)):
        shares = "".join(f"{_share(values, index):>11.2%}" for values in statistics.values())
        shown = "absent" if weight is None else f"{weight:.3f}"
        lines.append(f"{index:>5} {name:<{width}}{shares}{shown:>9}")
    return "\n".join([*lines, "weight: median frequency / frequency, from the first split"])


def _share(statistics: SplitStatistics, index: int) -> float:
    return statistics.class_pixels[index] / max(1, sum(statistics.class_pixels))
