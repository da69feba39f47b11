"""The options of training, in YAML and on the command line.

Names, meanings and defaults are those of `transformers.TrainingArguments` and TRL 1.16; `docs/options.md` lists all
differences. The docstring of each field is its `--help`.
"""

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from accelerate.utils import patch_environment
from transformers.training_args import TrainingArguments

from open_r1.devices import check_processes_fit, cuda_has_bf16, has_accelerator
from open_r1.errors import UserError
from open_r1.options.annotations import Range, check_fields
from open_r1.options.columns import ColumnOptions
from open_r1.rewards.options import RewardOptions


@dataclass
class ModelConfig:
    """Model and attention kernels."""

    model_name_or_path: str | None = None
    """Hub id or local folder of the model."""
    model_revision: str = "main"
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run model code that ships with the checkpoint."""
    pure_bf16: bool = False
    """Keep the weights themselves in bfloat16. Halves their memory, but rounds away updates near 1e-6."""
    attn_implementation: Literal["varlen", "flash_attention_4", "sdpa"] | None = None
    """Attention kernel. Default on CUDA in bfloat16: `flash_attention_4` if flash-attn-4 (extra `flash`) is installed
    and supports the model's heads, else `varlen` (PyTorch's kernel for packed sequences); otherwise `sdpa`, one
    document at a time."""
    linear_attention: Literal["fla"] | None = None
    """Kernel for gated delta nets (Qwen3.5, Qwen3-Next). `fla` (experimental; CUDA and the extra `fla`) runs over whole
    packs. Default: one document at a time."""

    # --- LoRA ---
    use_peft: bool = False
    """Train LoRA adapters instead of all weights (needs the extra `peft`)."""
    lora_r: Annotated[int, Range(at_least=1)] = 16
    """Rank of the adapters."""
    lora_alpha: int = 32
    """Scale of the adapters: their output is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = 0.05
    """Dropout on the input of the adapters."""
    lora_target_modules: list[str] | None = None
    """Names of the layers that get adapters. Default: all linear layers except the head."""
    lora_modules_to_save: list[str] | None = None
    """Names of layers to train in full, in addition to the adapters."""

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise UserError("model_name_or_path is missing: give a hub id or a local folder.")
        check_fields(self)


@dataclass
class DataConfig(ColumnOptions):
    """Dataset."""

    dataset_name: str | None = None
    """Hub id, local folder, or a .jsonl[.gz], .json, .parquet or .csv file."""
    dataset_config: str | None = None
    """Configuration of the hub dataset."""
    dataset_train_split: str = "train"
    """Split to train on; slices such as `train[:100]` work."""
    dataset_test_split: str = "test"
    """Split to evaluate on during training (used only if `eval_strategy` is set)."""
    dataset_mixture: dict[str, Any] | None = None
    """Mixture of datasets: `datasets` (a list with id, config, split, columns and weight of each), `seed`, and
    `test_split_size`."""
    system_prompt: str | None = None
    """System prompt for every conversation that has none."""
    dry_run: bool = False
    """Check everything that can be checked without training, show what would run, and exit."""


@dataclass
class GRPOScriptArguments(RewardOptions, DataConfig):
    """Data and rewards of a GRPO run."""

    reward_funcs: list[str] = field(default_factory=lambda: ["accuracy", "format", "tag_count"])
    """Rewards: registered names, or functions of your own (`my_module:my_reward` or `path/to/file.py:my_reward`)."""


@dataclass
class TrainConfig(TrainingArguments):
    """Training (SFT and GRPO)."""

    output_dir: str | None = None
    """Folder for checkpoints, the final model and all logs."""
    num_train_epochs: Annotated[float, Range(above=0)] = 3.0
    """Passes over the dataset."""
    max_steps: int = -1
    """Number of optimizer steps; overrides `num_train_epochs` unless it is -1."""
    per_device_train_batch_size: Annotated[int, Range(at_least=1)] = 8
    """Sequences (GRPO: completions) per process and micro-step."""
    gradient_accumulation_steps: Annotated[int, Range(at_least=1)] = 1
    """Micro-steps per optimizer step."""
    per_device_eval_batch_size: Annotated[int, Range(at_least=1)] = 8
    """Sequences per process in an evaluation step."""
    seed: Annotated[int, Range(at_least=0)] = 42
    """Random seed for data order, sampling and dropout."""
    logging_steps: float = 1
    """Steps between lines on the console. `run/metrics.jsonl` and trackers get every step."""

    # --- Precision, memory and speed ---
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: saves memory, takes about a third more time (a sixth with
    `torch_compile`)."""
    activation_offloading: bool = False
    """Move what gradient checkpointing stores (layers x hidden size x tokens) to CPU memory."""
    mlp_chunk_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Run the MLPs on this many tokens at a time (try 4096), which saves memory in long packs. The backward pass
    recomputes each chunk: about a fifth more arithmetic. Default: the whole pack."""
    ddp_find_unused_parameters: bool | None = False
    """Search for unused weights at every step. Not necessary, because every pack uses all weights."""
    bf16: bool | None = None  # type: ignore[assignment]
    """Compute in bfloat16 with float32 master weights. Default: true on CUDA devices that support it."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """`bfloat16` means `bf16: true`, with float32 master weights; `float32` means `bf16: false`."""
    max_tokens_per_microbatch: Annotated[int, Range(at_least=1)] = 16384
    """Maximum number of tokens in one forward and backward pass. Bounds memory; never changes the result."""
    sequence_parallel_size: Annotated[int, Range(at_least=1)] = 1
    """Number of processes that share each pack, for sequences too long for one process. A pack then holds up to this
    many times `max_tokens_per_microbatch` tokens, and the processes count as one for the batch size. Must divide the
    number of processes and of attention heads; never changes the result."""
    torch_compile: bool = False
    """Compile the decoder layers with `torch.compile`: faster steps after a slow first one."""
    hang_timeout: Annotated[float, Range(at_least=0)] = 3600
    """Seconds without progress (no group of completions, no micro-batch) after which the run ends, with the phase that
    hangs and the stacks of all threads. 0: never."""

    callbacks: list[Literal["push_to_hub_revision"]] | None = None
    """`push_to_hub_revision`: push each checkpoint to a branch of `hub_model_id`, named after `hub_model_revision` and
    the step, and submit `benchmarks` for it if Slurm is available (docs/clusters.md)."""

    # --- Benchmarks ---
    benchmarks: list[str] | None = None
    """Benchmarks to run on the trained model (`math_500`, `aime24`, a file ...; see docs/evaluation.md), with the
    system prompt of training. Results are in `<output_dir>/evaluation/` and in the metrics."""
    benchmarks_every_n_steps: Annotated[int | None, Range(at_least=1)] = None
    """Also run the benchmarks every N steps, into `<output_dir>/evaluation/step-NNNNNN/`."""
    benchmarks_data_dir: str | None = None
    """Folder with the problems of the benchmarks, as `<name>.jsonl[.gz]` or `.parquet`. Default: the hub."""
    benchmarks_limit: Annotated[int | None, Range(at_least=1)] = None
    """Use only the first N problems of each benchmark."""
    benchmarks_protocol: Literal["deepseek", "greedy"] = "deepseek"
    """`deepseek` samples at temperature 0.6 and top-p 0.95; `greedy` always takes the most likely token."""
    benchmarks_num_samples: Annotated[int | None, Range(at_least=1)] = None
    """Samples per problem. Default: the benchmark's own number (64 for AIME, 4 for MATH-500), or 1 if greedy."""
    benchmarks_max_new_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Maximum length of an answer, in tokens. Default: `max_completion_length` for GRPO, `max_length` for SFT."""

    # --- Chat template and trackers ---
    chat_template: str | None = None
    """Jinja template, or a file that contains one. Default: the tokenizer's own, else ChatML."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `{enable_thinking: false}`; they become defaults of the saved template.
    A column `chat_template_kwargs` overrides them for its row."""
    wandb_entity: str | None = None
    """Weights & Biases entity (with `report_to: wandb`)."""
    wandb_project: str | None = None
    """Weights & Biases project (with `report_to: wandb`)."""

    @property
    def longest_completion(self) -> int:
        """Maximum length of the answers that the model is trained to give, in tokens."""
        raise NotImplementedError

    @property
    def data_parallel_size(self) -> int:
        """Number of processes, or of groups that share packs, among which sequences are divided."""
        return max(1, self.world_size // self.sequence_parallel_size)

    def __post_init__(self) -> None:
        if self.dtype is not None:
            self.bf16 = self.dtype == "bfloat16"
        if self.bf16 is None:
            launcher = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
            self.bf16 = not self.fp16 and (launcher or (not self.use_cpu and cuda_has_bf16()))
        check_fields(self)
        if self.max_steps == 0:
            raise UserError("max_steps is 0: give the number of optimizer steps, or -1 to use num_train_epochs.")
        if self.activation_offloading and not self.gradient_checkpointing:
            raise UserError(
                "activation_offloading is true, but gradient_checkpointing is false, so there are no checkpoints to "
                "offload: set it to true."
            )
        self.remove_unused_columns = False
        self.use_cpu = self.use_cpu or not has_accelerator()
        if not self.use_cpu:
            check_processes_fit()
        if getattr(self, "activation_checkpointing", False) is None:  # the new name since transformers 5.23
            self.activation_checkpointing = self.gradient_checkpointing
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs
        compiles, self.torch_compile = self.torch_compile, False  # accelerate would compile the whole forward pass
        precision = "bf16" if self.bf16 else "fp16" if self.fp16 else "no"
        with patch_environment(ACCELERATE_MIXED_PRECISION=precision):  # overrides the launcher's
            super().__post_init__()
        self.torch_compile = compiles


@dataclass
class SFTConfig(TrainConfig):
    """Supervised fine-tuning on traces."""

    learning_rate: Annotated[float, Range(at_least=0)] = 2e-5
    """Peak learning rate."""
    max_length: Annotated[int, Range(at_least=2)] = 1024
    """Maximum length of a sequence in tokens; longer ones are truncated at the end and counted. With packing, the
    length of a row."""
    packing: bool = False
    """Fill rows of `max_length` tokens with whole documents; `per_device_train_batch_size` then counts rows."""

    # --- Learned tokens ---
    assistant_only_loss: bool = False
    """For conversations: learn only from assistant messages."""
    completion_only_loss: bool | None = None
    """For prompt and completion columns: learn only from the completion. Default: true."""
    dataset_text_field: str = "text"
    """Column with plain text, for datasets without messages or prompt and completion columns."""
    dataset_num_proc: int | None = None
    """Number of processes for tokenization."""
    eos_token: str | None = None
    """Token that ends a turn, if not the tokenizer's eos token (Qwen2.5 base models: `<|im_end|>`)."""

    # --- Engine ---
    engine: Literal["auto", "native", "transformers"] = "auto"
    """Engine for `benchmarks`. `native`: Open R1's own engine, on a temporary copy of the model. `transformers`: the
    model's own forward pass, which is slow. `auto`: native on CUDA if it supports the model, else transformers."""

    @property
    def longest_completion(self) -> int:
        return self.max_length


@dataclass
class GRPOConfig(TrainConfig):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300; R1, arXiv 2501.12948)."""

    learning_rate: Annotated[float, Range(at_least=0)] = 1e-6
    """Peak learning rate."""
    num_generations: Annotated[int, Range(at_least=2)] = 8
    """Completions per prompt: the group over which advantages are computed."""
    num_generations_eval: int | None = None
    """Completions per prompt during evaluation. Default: `num_generations`."""
    max_completion_length: Annotated[int, Range(at_least=1)] = 512
    """Maximum length of a completion, in tokens."""

    # --- Sampling and rounds ---
    temperature: Annotated[float, Range(above=0)] = 1.0
    """Sampling temperature; the trainer computes logprobs at the same temperature."""
    top_p: float = 1.0
    """Must be 1: the trainer cannot reproduce a truncated distribution."""
    top_k: int = 0
    """Must be 0, for the same reason."""
    min_p: float | None = None
    """Must be unset, for the same reason."""
    shuffle_dataset: bool = True
    """Draw prompts in a new random order in every epoch."""
    steps_per_generation: Annotated[int | None, Range(at_least=1)] = None
    """Micro-steps per round of generation. Must be a multiple of `gradient_accumulation_steps`, which is the default:
    one round per optimizer step."""
    num_iterations: Annotated[int, Range(at_least=1)] = 1
    """Optimization passes over each round of rollouts (μ in DeepSeekMath, algorithm 1)."""

    # --- Loss ---
    beta: Annotated[float, Range(at_least=0)] = 0.0
    """Weight of the KL penalty against the initial model; 0 loads no reference model."""
    use_bias_correction_kl: bool = True
    """Multiply the KL estimate by π/π_old, so that its gradient is unbiased (DeepSeek-V3.2, arXiv 2512.02556)."""
    epsilon: Annotated[float, Range(at_least=0)] = 0.2
    """Clipping range of π/π_old below 1, and above 1 unless `epsilon_high` is set."""
    epsilon_high: Annotated[float | None, Range(at_least=0)] = None
    """Clipping range of π/π_old above 1 (clip-higher, DAPO, arXiv 2503.14476). With `loss_type: cispo`, the upper bound
    of π/π_old itself, which must be set: 5 in ScaleRL (arXiv 2510.13786)."""
    delta: Annotated[float | None, Range(above=0)] = None
    """Upper bound of π/π_old for negative advantages (two-sided clipping, INTELLECT-2, arXiv 2505.07291)."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """`sequence` clips one length-normalized ratio per completion (GSPO, arXiv 2507.18071)."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo"] = "dapo"
    """How token losses are averaged; see docs/algorithms.md. `cispo` averages like `dapo`, but clips the weight of each
    token's gradient and so keeps every token (MiniMax-M1, arXiv 2506.13585)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of rewards in the group or in the batch, or not at all."""
    reward_weights: list[float] | None = None
    """Weight of each reward. Default: 1 each."""

    # --- Selection of rollouts ---
    filter_groups: bool = False
    """Dynamic sampling (DAPO): replace groups whose rewards are all equal with groups of other prompts."""
    max_num_gen_batches: Annotated[int, Range(at_least=1)] = 10
    """With `filter_groups`: maximum number of generations per round, including the first one."""
    max_staleness: Annotated[int, Range(at_least=0)] = 0
    """Maximum age of rollouts, in rounds: so many rounds are sampled ahead while earlier ones train, on separate GPUs
    (`engine: vllm`). 0: strictly on-policy. `vllm_importance_sampling_correction` corrects for stale rollouts."""
    mask_truncated_completions: bool = False
    """Exclude completions that reach `max_completion_length` from the loss, but not from their group's baseline."""

    # --- Engine ---
    engine: Literal["auto", "native", "vllm", "transformers"] = "auto"
    """Engine that samples completions. `native`: Open R1's own engine, with a copy of the policy on each training GPU.
    `vllm`: vLLM servers on other GPUs. `transformers`: the policy's own forward pass, which is slow. `auto`: vLLM with
    `use_vllm` and `vllm_mode: server`; else native on CUDA if it supports the model; else transformers."""

    # --- vLLM, and options of the native engine under their names in TRL ---
    use_vllm: bool = False
    """With `vllm_mode: server`, vLLM samples completions. Otherwise the same as `engine: auto`."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """With `use_vllm`: `server` samples on vLLM servers, `colocate` on the training GPUs, with an engine other than
    vLLM."""
    vllm_gpu_memory_utilization: Annotated[float, Range(above=0)] = 0.3
    """native: maximum share of GPU memory for the cache."""
    vllm_enable_sleep_mode: bool = False
    """native: free the cache during training. Each step then waits until it is allocated again."""
    vllm_enforce_eager: bool = False
    """Do not compile the engine (nor use CUDA graphs in servers started here): starts faster, decodes slower."""
    vllm_max_model_length: Annotated[int | None, Range(at_least=2)] = None
    """Maximum length of prompt plus completion, with any engine; longer prompts are dropped. Default: what the data
    needs."""
    vllm_server_base_url: str | None = None
    """server: addresses of the servers, separated by commas, such as `http://node1:8000`. Default: from
    `vllm_server_host` and `vllm_server_port`."""
    vllm_server_host: str = "127.0.0.1"
    """server: the host, if `vllm_server_base_url` is not set."""
    vllm_server_port: Annotated[int, Range(at_least=1, at_most=65535)] = 8000
    """server: the port, if `vllm_server_base_url` is not set."""
    vllm_server_timeout: Annotated[float, Range(at_least=0)] = 240.0
    """server: seconds to wait for the server to start."""
    vllm_group_port: Annotated[int, Range(at_least=0, at_most=65535)] = 51216
    """server: port on the training host from which servers get new weights. If it is in use, a free one is chosen."""

    # --- Correction for the sampler ---
    vllm_importance_sampling_correction: bool = True
    """Weight tokens by π_old/π_sampler, to correct for differences between the engine's and the trainer's logprobs."""
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "token_truncate"
    )
    """What to do with weights above `vllm_importance_sampling_clip_max`: truncate them or mask them, per token or per
    sequence."""
    vllm_importance_sampling_clip_max: Annotated[float, Range(above=0)] = 3.0
    """Upper bound of these weights."""

    # --- Health and the transformers engine ---
    stop_on_unhealthy: bool = False
    """End the run, with the reason, if it has stopped learning (`report/health.py`). Default: only warn."""
    max_tokens_per_decode: Annotated[int, Range(at_least=1)] = 65536
    """transformers: maximum number of prompt and completion tokens that are decoded at once."""

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model, self.greater_is_better = "reward", True
        super().__post_init__()
        for name, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", None)):
            if getattr(self, name) not in (neutral, None):
                raise UserError(
                    f"{name} is {getattr(self, name)}: GRPO needs {neutral}, because the trainer cannot compute "
                    "the probabilities of a truncated distribution. Use temperature instead."
                )
        if self.max_staleness and self.filter_groups:
            raise UserError("filter_groups is true, which needs max_staleness 0: stale rounds cannot be refilled.")
        if self.max_staleness and not self.vllm_importance_sampling_correction:
            raise UserError(
                f"max_staleness is {self.max_staleness}, but vllm_importance_sampling_correction is false, which stale "
                "rollouts need: set it to true."
            )
        if self.loss_type == "cispo" and (self.epsilon_high or 0) < 1:
            raise UserError(
                f"epsilon_high is {self.epsilon_high}: with loss_type cispo it is the upper bound of the ratio, so it "
                "must be at least 1 (5 is common)."
            )
        if self.loss_type == "cispo" and self.delta is not None:
            raise UserError(f"delta is {self.delta}, but loss_type cispo does not use it: remove it.")
        if self.steps_per_generation is None:
            self.steps_per_generation = self.gradient_accumulation_steps
        if self.steps_per_generation % self.gradient_accumulation_steps:
            raise UserError(
                f"steps_per_generation is {self.steps_per_generation}: it must be a multiple of "
                f"gradient_accumulation_steps ({self.gradient_accumulation_steps})."
            )

    @property
    def longest_completion(self) -> int:
        return self.max_completion_length

    @property
    def uses_vllm_servers(self) -> bool:
        """Whether vLLM servers sample the completions."""
        return self.engine == "vllm" or (self.engine == "auto" and self.use_vllm and self.vllm_mode == "server")

    @property
    def max_steps_per_rollout(self) -> int:
        """Optimizer steps per round of rollouts: distinct batches times passes."""
        assert self.steps_per_generation is not None
        return self.steps_per_generation // self.gradient_accumulation_steps * self.num_iterations
