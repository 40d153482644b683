"""The lab's Kubernetes API server: the public REST contract on a real etcd (ADR 0060)."""
