"""Sample, save, grade: the loop behind evaluation, generation, pass-rate filtering and the demo."""
