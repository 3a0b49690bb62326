"""Prints the lower bound of each dependency in setup.cfg as a constraint for pip.

Usage: python .ci/lower_bounds.py [EXTRA ...]
"""

import configparser
import pathlib
import sys

from packaging.requirements import Requirement


def lower_bounds(extras: list[str]) -> list[str]:
    """Returns name==version of the dependencies, and of those of the extras, on this Python."""
    setup = configparser.ConfigParser()
    setup.read(pathlib.Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in extras]
    bounds = []
    for line in "\n".join(texts).split("\n"):
        if not line.strip():
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        versions = [one.version for one in requirement.specifier if one.operator == ">="]
        bounds += [f"{requirement.name}=={version}" for version in versions]
    return sorted(set(bounds))


if __name__ == "__main__":
    print("\n".join(lower_bounds(sys.argv[1:])))
