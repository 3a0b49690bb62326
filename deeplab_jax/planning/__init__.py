"""Training on hardware that is not here: memory, arithmetic, communication, time."""

from deeplab_jax.planning.plan import Plan, plan
from deeplab_jax.planning.roofline import Chip, chips
from deeplab_jax.planning.topology import Topology, parse_topology

__all__ = ["Chip", "Plan", "Topology", "chips", "parse_topology", "plan"]
