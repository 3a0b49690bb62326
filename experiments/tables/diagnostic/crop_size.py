"""Diagnostic table: size of the training crops, for objects of many sizes."""

from experiments.table import Claim, Row, Table

LARGE, SMALL = "crops of 97 × 97", "crops of 49 × 49"
TABLE = Table(
    title="Crop size, on objects whose size varies by a factor of 16",
    paper="diagnostic",
    number="crop size",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=(Row(LARGE), Row(SMALL, changes={"augmentation.crop_size": (49, 49)})),
    claims=(Claim("large crops are required", "v3, table 8", LARGE, SMALL, 3.0),),
    notes=(
        "As in the paper, the number of images per batch is fixed. The outline of an object is "
        "partly outside of small crops, and the feature map has 4 × 4 instead of 7 × 7 positions."
    ),
)
