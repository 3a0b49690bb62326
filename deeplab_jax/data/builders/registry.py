"""Registry of the builders by dataset name."""

from deeplab_jax.data.builders.ade20k import Ade20k
from deeplab_jax.data.builders.base import SegmentationBuilder
from deeplab_jax.data.builders.camvid import Camvid
from deeplab_jax.data.builders.cityscapes import Cityscapes
from deeplab_jax.data.builders.coco import Coco
from deeplab_jax.data.builders.coco_stuff import CocoStuff
from deeplab_jax.data.builders.coco_voc import CocoVoc
from deeplab_jax.data.builders.cvat import Cvat
from deeplab_jax.data.builders.diagnostics import BUILT_IN
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.builders.label_studio import LabelStudio
from deeplab_jax.data.builders.labelme import Labelme
from deeplab_jax.data.builders.pascal_context import PascalContext
from deeplab_jax.data.builders.pascal_person_part import PascalPersonPart
from deeplab_jax.data.builders.shapes import Shapes
from deeplab_jax.data.builders.voc_segmentation import VocSegmentation
from deeplab_jax.data.builders.yolo import Yolo

BUILDERS: dict[str, type[SegmentationBuilder]] = {
    builder.name: builder
    for builder in (
        Camvid,
        VocSegmentation,
        Cityscapes,
        Ade20k,
        CocoStuff,
        CocoVoc,
        PascalContext,
        PascalPersonPart,
        Folder,
        Labelme,
        Coco,
        Cvat,
        LabelStudio,
        Yolo,
        Shapes,
        *BUILT_IN,
    )
}
