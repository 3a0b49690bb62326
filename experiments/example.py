"""An ablation of your own: copy this file, change the rows, run it.

  deeplab-jax prepare shapes --data_dir=data
  python -m experiments.run experiments/example.py --data_dir=data --seeds=2

A row says what differs from the table's recipe: fields of deeplab_jax/config.py, and fields of
`InferenceOptions` for evaluation. Rows that differ in evaluation alone share one training. A grid
over more fields needs no file:

  python -m experiments.run experiments/example.py --rows=1 --data_dir=data \\
      --grid model.output_stride=8,16 --grid model.atrous_rates=(1,2,3),(2,4,6)
"""

from experiments.table import Row, Table

TABLE = Table(
    title="Effect of the decoder and of flips on drawn shapes",
    paper="own",
    number="",
    recipe="shapes:cpu,steps=300",
    rows=(
        Row("decoder"),
        Row("decoder, flip", inference={"flip": True}),
        # The fields of the decoder in the recipe are removed with it.
        Row(
            "no decoder",
            changes={
                "model.decoder": "none",
                "model.low_level_channels": None,
                "model.decoder_convs": None,
            },
        ),
    ),
)
