"""Lesson 06: how a code dies. Lesson 07 (02 too): what is wrong with a VAE, a loss's true beta."""
