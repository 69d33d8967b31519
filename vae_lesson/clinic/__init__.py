"""Lesson 06: how a VAE collapses, what is wrong with one and with its loss, its true beta."""
