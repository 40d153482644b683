"""Packets through the programs: packet in, verdict and packet out."""
