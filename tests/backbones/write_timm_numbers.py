"""Writes timm_numbers.json from timm: `PYTHONPATH=tests:tests/helpers python tests/backbones/…`."""

import json

from backbones import timm_networks
from backbones.test_timm_backbones import NAMES, RECORDED, SMALL
from backbones.timm_weights import samples, summary


def main():
    """Records parameters and checksums of all networks, and features of the small ones."""
    features = {
        f"{name} {size[0]}x{size[1]} {output_stride}": [
            samples(values) for values in timm_networks.feature_maps(name, size, output_stride)
        ]
        for name, cases in SMALL.items()
        for size, output_stride in cases
    }
    networks = {name: summary(timm_networks.sizes(name)) for name in NAMES}
    RECORDED.write_text(json.dumps({"networks": networks, "features": features}, indent=1) + "\n")


if __name__ == "__main__":
    main()
