"""DeepLab v2, table 2: learning-rate schedule, batch size and number of steps."""

from experiments.table import Row, Table


def poly(batch_size: int, num_steps: int, published: float) -> Row:
    """Returns a row with the poly schedule, given batch size, number of steps and mean IoU in %."""
    changes = {"training.batch_size": batch_size, "training.num_steps": num_steps}
    return Row(f"poly, batch {batch_size}, {num_steps // 1000}K", published, changes)


TABLE = Table(
    title="Learning-rate schedule, batch size and number of steps of VGG-16 LargeFOV",
    paper="v2",
    number="2",
    recipe="deeplab_v2:backbone=vgg_16,head=large_fov",
    rows=(
        Row(
            "step, batch 30, 6K",
            62.25,
            recipe="deeplab_v2:backbone=vgg_16,head=large_fov,schedule=step",
        ),
        poly(30, 6_000, 63.42),
        poly(30, 10_000, 64.90),
        poly(10, 10_000, 64.71),
        poly(10, 20_000, 65.88),
    ),
)
