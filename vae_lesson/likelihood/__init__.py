"""Lesson 04: what log p(x) is, estimated and exact, and densities for pixels (also lesson 05)."""
