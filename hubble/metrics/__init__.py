"""What a node's flows count: Hubble's metrics."""
