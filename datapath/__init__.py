"""The adapter between desired tables and the kernel: libbpf, maps, programs, links, routes."""
