"""Rehearsals: many simulated clusters around one real agent."""
