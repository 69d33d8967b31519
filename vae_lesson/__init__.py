"""Models, losses and latent explorers for the VAE lessons.

Where things are, in the order a lesson meets them:

- `data`      images as uint8 tensors, on the device, with or without a network
- `models`    the autoencoder and the variational autoencoder
- `losses`    reconstruction, KL, the ELBO and tighter bounds, in nats per image
- `train`     one plain loop, `fit`; `python -m vae_lesson.train` runs it (`command`)
- `saving`    trained models and checkpoints
- `devices`   CPU or GPU, threads, several processes; `graphs`: a step as a CUDA graph
- `evaluate`  the numbers: test ELBO, PCA, active units, holes in a latent space
- `latent`    walking in a latent space: interpolation, traversals, directions
- `likelihood` log p(x) by importance sampling; `linear`: a VAE that can be solved exactly
- `translate` the true beta of a loss; `diagnose`: what is wrong with a VAE; `broken`: five patients
- `sprites`   images with known factors, and the mutual information gap
- `plots`     every figure
- `explore`   sliders, maps and a drawing pad
- `checks`    the exercises' checks
- `lesson`    what a notebook needs to be a lesson: parameters, bands, tables

Nothing is imported here, so that importing one module costs only that module.
"""
