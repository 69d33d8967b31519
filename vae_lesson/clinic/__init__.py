"""Lesson 07, and 02: what is wrong with a VAE and its loss, and which beta a loss really has."""
