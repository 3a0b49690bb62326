"""Networks that are compared with timm, and timm's own feature maps of them."""

import torch
from backbones.timm_weights import draw, pixels
from pretrained.peers import channels_first, peer

timm = peer("timm")


def network(name, output_stride):
    """Returns timm's network that outputs features, with weights drawn from their names."""
    strided = {} if output_stride == 32 else {"output_stride": output_stride}
    found = timm.create_model(name, features_only=True, **strided)
    with torch.no_grad():
        for key, values in found.state_dict().items():
            if values.dtype.is_floating_point:
                values.copy_(torch.from_numpy(draw(full_name(key), tuple(values.shape))))
    return found.eval()


def full_name(key):
    """Returns the name in the whole network: some networks that output features flatten it."""
    for stem in ("stem", "stages"):
        key = key.replace(f"{stem}_", f"{stem}.", 1) if key.startswith(f"{stem}_") else key
    return key


def sizes(name):
    """Returns the number of values of each floating-point array by name."""
    arrays = timm.create_model(name, features_only=True).state_dict()
    return {
        full_name(key): values.numel()
        for key, values in arrays.items()
        if values.dtype.is_floating_point
    }


def feature_maps(name, size, output_stride):
    """Returns timm's last four feature maps [N, H, W, C]."""
    with torch.no_grad():
        maps = network(name, output_stride)(channels_first(pixels(size)))
    return [values.permute(0, 2, 3, 1).numpy() for values in maps[-4:]]
