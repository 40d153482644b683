"""Flows into files, as JSON lines."""
