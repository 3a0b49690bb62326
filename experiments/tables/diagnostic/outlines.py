"""Diagnostic table: decoder and dense CRF near the outlines of objects."""

from experiments.table import Claim, Row, Table

BILINEAR, DECODER = "bilinear, band of 1 pixel", "decoder, band of 1 pixel"
PLAIN, REFINED = "bilinear, all pixels", "bilinear and CRF, all pixels"
SMALL_DECODER = {
    "model.decoder": "v3plus",
    "model.low_level_channels": 16,
    "model.decoder_convs": ((3, 48), (3, 48)),
}
TABLE = Table(
    title="Decoder and dense CRF at the outlines of objects, at output stride 16",
    paper="diagnostic",
    number="outlines",
    recipe="diagnostics:task=outlines",
    dataset="diagnostic_outlines",
    rows=(
        Row(BILINEAR, trimap=1),
        Row(DECODER, changes=SMALL_DECODER, trimap=1),
        Row(PLAIN),
        Row(REFINED, inference={"crf": "deeplab"}),
    ),
    claims=(
        Claim("a decoder helps near outlines", "v3+, figure 5", DECODER, BILINEAR, 4.0),
        Claim("a dense CRF helps", "v1, table 1; v2, table 4", REFINED, PLAIN, 1.0),
    ),
    notes=(
        "The band contains the pixels beside the void outlines. The parameters of the CRF are "
        "those that the authors published for DeepLab v1 with kernels of 4 × 4."
    ),
)
