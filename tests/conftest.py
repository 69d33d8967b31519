"""Shared by all tests: results go to a temporary folder, never over the user's own."""

import os
import tempfile

# The first Adam imports this, which fails while a test has torch.cuda patched: so import it now.
import torch._dynamo  # noqa: F401

RESULTS = tempfile.TemporaryDirectory(prefix="vae_lesson_results_")
os.environ["VAE_LESSON_RESULTS"] = RESULTS.name
