"""The few controllers a lab needs, and its scheduler (ADR 0061)."""
