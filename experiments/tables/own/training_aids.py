"""Family 6: training aids on CamVid, each alone against the same recipe, in pairs of 15 minutes.

  python -m experiments.run own/training_aids --preset=paper --data_dir=data --seeds=1

The rows of one recipe differ by one field group each. A row that gains more than half a point with
one seed deserves three seeds.
"""

from experiments.table import Row, Table

SCRATCH = "camvid:cpu,steps=1600"
FINE_TUNED = "camvid:cpu,steps=450,init=deeplabv3_mobilenetv2_voc_coreml_lut8"
# Classes with the lowest IoU of the recipe, whose objects are small.
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
        "Stochastic depth is a field of ResNets and of the backbones of timm "
        "(model.stochastic_depth), so this recipe on MobileNetV2 has no row for it. Layer decay "
        "replaces part of the lower learning rate that the recipe gives to the backbone."
    ),
)
