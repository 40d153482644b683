"""Policy objects, as the API server keeps them, read into ``policy.rules``. Pure."""
