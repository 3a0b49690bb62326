"""DeepLab v1, table 1 (a): kernel and rate of fc6, multi-scale features, and CRF."""

from experiments.strategies import CRF
from experiments.table import Row, Table, Training

BASE, LARGE, WIDE = "deeplab_v1:fov=4x4", "deeplab_v1", "deeplab_v1:fov=7x7"
# (label, recipe, training run for the initial weights, mean IoU without CRF, mean IoU with CRF)
NETWORKS = (
    ("DeepLab (4×4, rate 4)", BASE, None, 59.80, 63.74),
    ("DeepLab-MSc", f"{BASE},msc", Training(BASE), 61.30, 65.21),
    ("DeepLab-7×7 (rate 4)", WIDE, None, 64.38, 67.64),
    ("DeepLab-LargeFOV", LARGE, None, 62.25, 67.64),
    ("DeepLab-MSc-LargeFOV", f"{LARGE}:msc", Training(LARGE), 64.21, 68.70),
)
TABLE = Table(
    title="Variants of DeepLab v1, without and with a dense CRF",
    paper="v1",
    number="1a",
    recipe=BASE,
    rows=tuple(
        Row(label + mark, value, inference=inference, recipe=recipe, after=after)
        for label, recipe, after, plain, refined in NETWORKS
        for mark, value, inference in (("", plain, {}), (" + CRF", refined, CRF))
    ),
    notes="The 7×7 network uses the CRF parameters of the 4×4 network. Its own are not published.",
)
