"""The exercises' checks, one file a lesson: correct, not yet, or *which* common mistake it is."""
