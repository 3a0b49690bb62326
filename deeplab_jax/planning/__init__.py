"""Planning of training runs on TPUs and GPUs without the hardware, by ahead-of-time compilation."""

from deeplab_jax.planning.hardware import Chip, Topology, chips, parse_topology
from deeplab_jax.planning.plan import Plan, plan

__all__ = ["Chip", "Plan", "Topology", "chips", "parse_topology", "plan"]
