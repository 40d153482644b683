"""The whole mesh in one process and in virtual time, with seeded faults."""
