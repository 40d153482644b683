"""Unit tests of certs."""
