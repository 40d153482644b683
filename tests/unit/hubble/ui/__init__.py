"""Tests of hubble/ui."""
