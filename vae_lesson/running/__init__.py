"""What surrounds a training, in every lesson: progress, interrupts, NaNs, checkpoints, devices,
threads, processes, the CUDA graph, saved models and the command line."""
