"""Example of an ablation table. Copy this file, change the rows and run it:

  deeplab-jax prepare shapes --data_dir=data
  python -m experiments.run experiments/example.py --data_dir=data --seeds=2

Each row lists its differences from the recipe of the table. Differences in training are config
fields (see `deeplab-jax inspect --config`), and differences in evaluation are fields of
`InferenceOptions`. Rows that differ only in evaluation share one training run. To vary further
fields without a new file, use a grid:

  python -m experiments.run experiments/example.py --rows=1 --data_dir=data \\
      --grid model.output_stride=8,16 --grid "model.atrous_rates=(1,2,3),(2,4,6)"
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
        # A network without a decoder does not accept the decoder fields that the recipe sets.
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
