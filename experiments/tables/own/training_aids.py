"""Ablation family 6: training aids on CamVid. Each row adds one aid to a recipe.

  python -m experiments.run own/training_aids --preset=paper --data_dir=data --seeds=1

There are two recipes: one trains from random weights, the other from VOC weights. A training run
takes about 15 minutes. If a row gains more than half a point of mean IoU, repeat it with three
seeds.
"""

from experiments.table import Row, Table

SCRATCH = "camvid:cpu,steps=1600"
FINE_TUNED = "camvid:cpu,steps=450,init=deeplabv3_mobilenetv2_voc_coreml_lut8"
# Classes with small objects and the lowest IoU under the recipe.
PASTED = ("Pole", "SignSymbol", "Pedestrian", "Bicyclist")

TABLE = Table(
    title="Training aids on CamVid: mixing, colors, layer-wise learning rates",
    paper="own",
    number="family 6",
    recipe=SCRATCH,
    dataset="CamVid",
    rows=(
        Row("from scratch"),
        Row("CutMix, probability ½", changes={"augmentation.cutmix": 0.5}),
        Row("ClassMix, probability ½", changes={"augmentation.classmix": 0.5}),
        Row(
            "copy-paste of rare classes, probability ½",
            changes={"augmentation.copy_paste": 0.5, "augmentation.copy_paste_classes": PASTED},
        ),
        Row(
            "RandAugment of colors in place of distortion",
            changes={"augmentation.randaugment": 2, "augmentation.photometric": 0.0},
        ),
        Row("from VOC weights", recipe=FINE_TUNED),
        Row(
            "from VOC weights, layer decay 0.9",
            recipe=FINE_TUNED,
            changes={"optimizer.layer_decay": 0.9, "optimizer.multipliers.backbone": 0.3},
        ),
        Row(
            "from VOC weights, ClassMix, probability ½",
            recipe=FINE_TUNED,
            changes={"augmentation.classmix": 0.5},
        ),
    ),
    notes=(
        "There is no row for stochastic depth (model.stochastic_depth), because only ResNets and "
        "the backbones of timm support it, and this recipe has a MobileNetV2. The row with layer "
        "decay has a larger multiplier of the backbone's learning rate (0.3), because layer decay "
        "also reduces this rate."
    ),
)
