"""vLLM servers: for models that do not fit on one GPU, and for other GPUs and hosts than the trainer's."""
