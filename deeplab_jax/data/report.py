"""What `prepare --report` shows: counts, sizes, classes, weights, and what was left out."""

from deeplab_jax.data.preparation import Preparation
from deeplab_jax.data.statistics import SplitStatistics


def render(preparation: Preparation) -> str:
    """Returns the report as text for a terminal."""
    names, statistics = preparation.class_names, preparation.statistics
    sections = [f"{preparation.directory}", _counts(statistics), _histogram(names, statistics)]
    if preparation.left_out:
        listed = "\n".join(f"  {reason}" for reason in preparation.left_out)
        sections.append(f"left out ({len(preparation.left_out)}):\n{listed}")
    return "\n\n".join(sections)


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
