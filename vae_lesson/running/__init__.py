"""What surrounds a training, in every lesson: progress, interrupts, NaNs, checkpoints, devices,
threads, processes, the CUDA graph and saved models."""
