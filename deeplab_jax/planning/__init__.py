"""Memory, arithmetic, communication and step time of training on hardware that is not present."""

from deeplab_jax.planning.hardware import Chip, Topology, chips, parse_topology
from deeplab_jax.planning.plan import Plan, plan

__all__ = ["Chip", "Plan", "Topology", "chips", "parse_topology", "plan"]
