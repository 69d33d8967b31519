"""Shared by all tests: results go to a temporary folder, never over the user's own."""

import os
import tempfile

# The first Adam imports this, which fails while a test has torch.cuda patched: so import it now.
import torch._dynamo

# Models as small as the tests' only wait for a second thread. Before the package is imported, so
# that it takes no more; the notebooks' kernels take as many as there are.
torch.set_num_threads(1)

RESULTS = tempfile.TemporaryDirectory(prefix="vae_lesson_results_")
os.environ["VAE_LESSON_RESULTS"] = RESULTS.name
