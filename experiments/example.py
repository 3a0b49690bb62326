"""Example of an ablation table. Copy this file, change the rows and run it:

  deeplab-jax prepare shapes --data_dir=data
  python -m experiments.run experiments/example.py --data_dir=data --seeds=2

Each row lists its differences from the recipe of the table: config fields (see `deeplab-jax inspect
--config`) for training, and fields of `InferenceOptions` for evaluation. Rows that differ only in
the evaluation share one training. A grid over more fields needs no new file:

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
