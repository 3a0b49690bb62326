"""Ablation family 2: rates of ASPP, from far too small to far too large, and image pooling."""

from experiments.table import Row, Table

RATES = {
    "far too small": (2, 4, 6),
    "half": (3, 6, 9),
    "the paper's": (6, 12, 18),
    "double": (12, 24, 36),
    "far too large": (24, 48, 72),
}
TABLE = Table(
    title="Rates of ASPP with and without image pooling",
    paper="own",
    number="family 2",
    recipe="deeplab_v3",
    rows=tuple(
        Row(
            f"{name} rates {rates}, {'with' if pooling else 'without'} image pooling",
            changes={"model.atrous_rates": rates}
            | ({} if pooling else {"model.image_pooling": "none"}),
        )
        for pooling in (False, True)
        for name, rates in RATES.items()
    ),
    notes=(
        "The rates are for 513 × 513 crops; presets with smaller crops scale them down. According "
        "to DeepLab v3 (figure 4 and table 5), a filter uses only its center if the rate is as "
        "large as the feature map, and image pooling compensates for this."
    ),
)
