"""The lab's container runtime: one small process per node, standard library only."""
