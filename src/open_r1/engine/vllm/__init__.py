"""vLLM servers: for models that do not fit one GPU, and for GPUs and hosts other than the trainer's."""
