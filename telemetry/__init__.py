"""What a process says of itself to machines: metrics and log lines."""
