"""Shapes of models that were measured, and options of a run."""

from open_r1.configs import ModelConfig, SFTConfig
from open_r1.run.estimate import Shape

HEADS = frozenset({(128, 128)})
QWEN_1_5B = Shape(1_543_714_304, 0, 233_373_696, 28, 1536, 8960, 1536, 256, False, True, HEADS)
QWEN_7B = Shape(7_615_616_512, 0, 544_997_376, 28, 3584, 18944, 3584, 512, False, False, HEADS)
ADAPTERS = {1_543_714_304: 18_464_768, 7_615_616_512: 40_370_176}


def options(**values):
    return SFTConfig(output_dir="out", use_cpu=True, **{"bf16": True, "max_tokens_per_microbatch": 16384} | values)


def model(**values):
    return ModelConfig(model_name_or_path="none", **values)
