"""Ablation family 7: few labels on CamVid, with pseudo-labels for the other training images.

  python -m experiments.run own/few_labels --preset=camvid --seeds=3 --data_dir=data \\
      --init=deeplabv3_mobilenetv2_dm05_voc_tflite

Images are ordered by name, and the labeled images are the first 25 % or 50 %. They are therefore
consecutive frames of a few videos. In the last row, 25 % of the images are labeled, and the
others have pseudo-labels. These are predictions of the network that the first row trains with the
same seed.
"""

from experiments.table import Row, Table

QUARTER = {"data.train_split": "train[:25%]"}
TABLE = Table(
    title="Few labels: a quarter, half, and a quarter with pseudo-labels for the other images",
    paper="own",
    number="family 7",
    recipe="deeplab_v3",
    dataset="CamVid",
    rows=(
        Row("25 % of the labels", changes=QUARTER),
        Row("50 % of the labels", changes={"data.train_split": "train[:50%]"}),
        Row(
            "25 % of the labels, pseudo-labels for the others",
            changes=QUARTER,
            unlabeled="train[25%:]",
        ),
    ),
    notes=(
        "Each row is compared with the first row over three seeds, by a rule that was fixed before "
        "the run. A row is better if its mean IoU is higher for every seed, and by at least 1.0 on "
        "average. It is worse if its mean IoU is lower for every seed, and by at least 1.0 on "
        "average. Otherwise, the comparison is undecided. Pseudo-labels are predicted at scales "
        "0.75, 1 and 1.25 with flips; pixels with a confidence below 0.9 are void. The split "
        "train[:25%] of CamVid has 92 of 367 images: the sequence 0001TP and the first 30 frames "
        "of 0006R0."
    ),
)
