"""Shared by all tests: results go to a temporary folder, never over the user's own."""

import os
import tempfile

RESULTS = tempfile.TemporaryDirectory(prefix="vae_lesson_results_")
os.environ["VAE_LESSON_RESULTS"] = RESULTS.name
# A machine with other work to do (a second notebook, a browser) must not stop torch's threads
# from making progress: waiting threads sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
