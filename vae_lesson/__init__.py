"""Models, losses and latent explorers for the VAE lessons.

The files of this folder are the core, what lessons 01 to 04 read; the folders are its wings. The
tree in CONTRIBUTING.md says what each is for. Nothing is imported here, so that importing one
module costs only that module.
"""
