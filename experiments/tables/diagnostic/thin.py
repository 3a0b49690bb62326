"""Diagnostic table: output strides and a decoder, on lines that are 1 to 3 pixels wide."""

from experiments.table import Claim, Row, Table

STRIDES = {stride: f"output stride {stride}" for stride in (32, 16, 8)}
DECODER = "output stride 16, decoder"
SMALL_DECODER = {
    "model.decoder": "v3plus",
    "model.low_level_channels": 16,
    "model.decoder_convs": ((3, 48), (3, 48)),
}
STRIDE_SOURCE, DECODER_SOURCE = "v3, table 1", "v3+, table 3"
TABLE = Table(
    title="Output stride and decoder, on lines of one to three pixels",
    paper="diagnostic",
    number="thin",
    recipe="diagnostics:task=thin",
    dataset="diagnostic_thin",
    rows=(
        *(Row(label, changes={"model.output_stride": s}) for s, label in STRIDES.items()),
        Row(DECODER, changes={"model.output_stride": 16} | SMALL_DECODER),
    ),
    claims=(
        Claim("output stride 16 beats 32", STRIDE_SOURCE, STRIDES[16], STRIDES[32], 3.0),
        Claim("output stride 8 beats 16", STRIDE_SOURCE, STRIDES[8], STRIDES[16], 3.0),
        Claim(
            "a decoder with low-level features recovers outlines",
            DECODER_SOURCE,
            DECODER,
            STRIDES[16],
            5.0,
        ),
    ),
)
