"""Lesson 05: what log p(x) is, estimated and exact, and densities for pixels (also lesson 06)."""
