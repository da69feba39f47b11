"""Options of generating, shared by `open-r1 generate` and `open-r1 data pass-rate`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from open_r1.engine.options import Count, EngineOptions
from open_r1.errors import UserError
from open_r1.options.annotations import Range
from open_r1.options.columns import ColumnOptions

PLAIN = "{{ instruction }}"
"""Prompt template that changes nothing."""


@dataclass(kw_only=True)
class SamplingOptions(ColumnOptions):
    """Problems, sampling and rows."""

    hf_dataset_config: str | None = None
    """Configuration of the hub dataset."""
    hf_dataset_split: str = "train"
    """Split of the dataset; slices such as train[:100] work."""
    prompt_template: str = PLAIN
    """Jinja template of the prompt, or a file with one. {{ instruction }} is the prompt column; other columns have
    their own names."""
    system_prompt: str | None = None
    """System prompt for every problem that has none."""
    skip_long_prompts: bool = False
    """Skip prompts that do not fit in the model's context."""

    # --- Sampling ---
    num_generations: Count = 1
    """Completions per problem."""
    temperature: Annotated[float, Range(at_least=0)] = 0.6
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Range(above=0, at_most=1)] = 0.95
    """Sample from the most likely tokens, up to this total probability."""
    max_new_tokens: Count = 8192
    """Maximum length of a completion, in tokens."""
    seed: int = 0
    """Random seed for sampling."""

    # --- Concurrency and files ---
    input_batch_size: Count = 64
    """With servers: problems in progress, per replica."""
    client_replicas: Count = 1
    """With servers: factor of `input_batch_size`. One process handles all replicas."""
    rows_per_shard: Count = 2000
    """Rows per Parquet file."""
    shard: str = "0/1"
    """I/N: use only every N-th problem, beginning with number I (from 0)."""

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.num_generations > 1:
            raise UserError(
                f"num_generations is {self.num_generations} at temperature 0, where all are the same: give "
                "--num-generations 1 or a temperature."
            )
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not match or int(match[1]) >= int(match[2]):
            raise UserError(f"shard is {self.shard!r}: expected I/N with I from 0 to N - 1, such as 0/8.")

    @property
    def part(self) -> tuple[int, int]:
        """I and N of `shard`."""
        index, count = self.shard.split("/")
        return int(index), int(count)

    def with_concurrency(self, engine: EngineOptions) -> EngineOptions:
        """`engine` with the concurrency that these options imply, unless it sets its own."""
        wanted = self.input_batch_size * self.client_replicas * self.num_generations
        return replace(engine, concurrency=engine.concurrency or wanted)


@dataclass(kw_only=True)
class GenerateOptions(SamplingOptions):
    """Input and output."""

    hf_dataset: str
    """Hub id, local folder or file with the problems."""
    output: Path
    """Output folder."""
    hf_output_dataset: str | None = None
    """Hub id to push the finished folder to."""
    private: bool = False
    """Make `hf_output_dataset` private."""


def output_folder(folder: Path, part: tuple[int, int]) -> Path:
    """`folder`, or the folder in it of one shard of several."""
    index, count = part
    return folder if count == 1 else folder / f"shard-{index:05d}-of-{count:05d}"
