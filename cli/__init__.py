"""``isthmus``: what a person types."""
