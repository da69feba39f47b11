"""Open R1: the DeepSeek-R1 recipe, open, complete and fast."""

__version__ = "0.1.0"
