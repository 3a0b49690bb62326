"""DeepLab v2, table 1: field of view; only the row that table 1 of DeepLab v1 does not have."""

from experiments.strategies import CRF
from experiments.table import Row, Table

TABLE = Table(
    title="Field of view on VGG-16: the 4×4 kernel at rate 8",
    paper="v2",
    number="1",
    recipe="deeplab_v1:fov=4x4,rate=8",
    rows=(
        Row("4×4, rate 8", 63.41),
        Row("4×4, rate 8 + CRF", 67.14, inference=CRF),
    ),
    notes="The other rows of the table are those of DeepLab v1.",
)
