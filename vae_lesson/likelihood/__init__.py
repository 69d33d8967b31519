"""Lesson 05: what log p(x) is, estimated and exact, and densities for pixels (also 06 and 07)."""
