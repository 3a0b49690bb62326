"""DeepLab v2, table 1: field of view, without the rows that are also in table 1 of v1."""

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
    notes="The other rows of this table are in table 1 of DeepLab v1 (v1/table1a).",
)
