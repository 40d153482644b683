"""Certificates: who needs which, issuing, checking."""
