"""Hubble: the ring, the decoder."""
