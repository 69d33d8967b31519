"""Models, losses and latent explorers for the VAE lessons.

Where things are, in the order a lesson meets them:

- `data`      images as uint8 tensors, on the device, with or without a network
- `models`    the autoencoder and the variational autoencoder
- `losses`    reconstruction, KL and the ELBO, in nats per image
- `train`     one plain loop, `fit`; saving and loading
- `evaluate`  the numbers: test ELBO, PCA, active units, holes in a latent space
- `latent`    walking in a latent space: interpolation, traversals, directions
- `plots`     every figure
- `explore`   the sliders
- `checks`    the exercises' checks
- `lesson`    what a notebook needs to be a lesson: parameters, bands, tables

Nothing is imported here, so that importing one module costs only that module.
"""
