"""What the lab runs for an image name: there is no registry and nothing is downloaded."""
