"""The lab: clusters made of network namespaces on one Linux machine."""
