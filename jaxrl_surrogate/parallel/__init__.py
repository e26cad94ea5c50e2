"""The device mesh, and the rules that decide how arrays are sharded over it."""

from jaxrl_surrogate.parallel import hosts, partition, placement
from jaxrl_surrogate.parallel.host_threads import enough_host_threads
from jaxrl_surrogate.parallel.mesh import MeshConfig, make_mesh

__all__ = [
    "MeshConfig",
    "enough_host_threads",
    "hosts",
    "make_mesh",
    "partition",
    "placement",
]
