"""Unit tests of kvstore."""
