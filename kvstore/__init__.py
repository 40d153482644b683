"""etcd: reading, writing, watching; what is published, mirrored and trusted."""
