"""Options that users can set, in YAML and on the command line.

Names, meanings and defaults are those of `transformers.TrainingArguments` and of TRL 1.16; `docs/options.md` lists
every difference. The text under each field is its `--help`.
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
    """Which model is trained, and how its weights are stored."""

    model_name_or_path: str | None = None
    """Hub id or local folder of the model."""
    model_revision: str = "main"
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run model code that ships with the checkpoint."""
    pure_bf16: bool = False
    """Keep the weights themselves in bfloat16. Halves memory, but updates near 1e-6 are rounded away."""
    attn_implementation: Literal["varlen", "flash_attention_4", "sdpa"] | None = None
    """Attention over packed tokens. Default on CUDA in bfloat16: flash-attn-4 (extra `flash`) where it is installed and
    takes the model's heads, else `varlen`, PyTorch's own kernel; elsewhere `sdpa`, document by document."""
    linear_attention: Literal["fla"] | None = None
    """Gated delta nets (Qwen3.5, Qwen3-Next) over packed tokens. Default: document by document. `fla` (experimental,
    extra `fla`, CUDA): the kernels of fla-core over whole packs."""

    # --- LoRA ---
    use_peft: bool = False
    """Train LoRA adapters instead of all weights (needs the `peft` extra)."""
    lora_r: Annotated[int, Range(at_least=1)] = 16
    """Rank of the adapters."""
    lora_alpha: int = 32
    """Scale of the adapters; the update is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = 0.05
    """Dropout before the adapters."""
    lora_target_modules: list[str] | None = None
    """Names of the layers that get adapters. Default: every linear layer but the head."""
    lora_modules_to_save: list[str] | None = None
    """Names of layers that are trained in full, in addition to the adapters."""

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise UserError("model_name_or_path is missing: give a hub id or a local folder.")
        check_fields(self)


@dataclass
class DataConfig(ColumnOptions):
    """The source of problems or traces."""

    dataset_name: str | None = None
    """Hub id, local folder, or a .jsonl[.gz], .json, .parquet or .csv file."""
    dataset_config: str | None = None
    """Configuration of the hub dataset."""
    dataset_train_split: str = "train"
    """Split to train on; slices such as `train[:100]` work."""
    dataset_test_split: str = "test"
    """Split for evaluation during training (read only if `eval_strategy` asks for it)."""
    dataset_mixture: dict[str, Any] | None = None
    """Several datasets: `datasets` (a list of id, config, split, columns, weight), `seed`, `test_split_size`."""
    system_prompt: str | None = None
    """Added before every conversation that has no system message."""
    dry_run: bool = False
    """Check everything except training itself, show what would run, and exit."""


@dataclass
class GRPOScriptArguments(RewardOptions, DataConfig):
    """Data and rewards of a GRPO run."""

    reward_funcs: list[str] = field(default_factory=lambda: ["accuracy", "format", "tag_count"])
    """Registered rewards by name, or any function of yours (`my_module:my_reward` or
    `path/to/file.py:my_reward`)."""


@dataclass
class TrainConfig(TrainingArguments):
    """Options that SFT and GRPO share."""

    output_dir: str | None = None
    """Folder of the run: checkpoints, the final model, and all logs."""
    num_train_epochs: Annotated[float, Range(above=0)] = 3.0
    """Passes over the dataset."""
    max_steps: int = -1
    """Optimizer steps; overrides `num_train_epochs`, unless -1."""
    per_device_train_batch_size: Annotated[int, Range(at_least=1)] = 8
    """Sequences per process in a micro-step (GRPO: completions)."""
    gradient_accumulation_steps: Annotated[int, Range(at_least=1)] = 1
    """Micro-steps of one optimizer step."""
    per_device_eval_batch_size: Annotated[int, Range(at_least=1)] = 8
    """Sequences per process in an evaluation step."""
    seed: Annotated[int, Range(at_least=0)] = 42
    """Random seed of data order, sampling and dropout."""
    logging_steps: float = 1
    """Steps per console line. `run/metrics.jsonl` and trackers get every step."""

    # --- Precision, memory and speed ---
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a third more time."""
    activation_offloading: bool = False
    """Move what gradient checkpointing stores (layers x hidden width x tokens numbers) to the CPU's memory."""
    mlp_chunk_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Tokens that go through an MLP at once. Saves memory in long packs (try 4096). Each chunk is recomputed in the
    backward pass, which is about a fifth more arithmetic. Default: the whole pack."""
    ddp_find_unused_parameters: bool | None = False
    """Search for unused weights at every step. Not needed: every pack uses all weights."""
    bf16: bool | None = None  # type: ignore[assignment]
    """Compute in bfloat16 over float32 master weights. Default: on CUDA devices that support it."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """`bfloat16` computes in bfloat16 and keeps float32 master weights, the same as `bf16: true`."""
    max_tokens_per_microbatch: Annotated[int, Range(at_least=1)] = 16384
    """Tokens in one forward and backward pass. Bounds memory; never changes the result."""
    sequence_parallel_size: Annotated[int, Range(at_least=1)] = 1
    """Number of processes that share a pack, for sequences that are too long for one process; each computes a slice.
    A pack then has up to this number times `max_tokens_per_microbatch` tokens, and the processes count as one in the
    batch. Must divide the model's attention heads and the number of processes; never changes the result."""
    torch_compile: bool = False
    """Compile the decoder layers (`torch.compile`, one layer at a time): faster steps after a slower first one."""
    hang_timeout: Annotated[float, Range(at_least=0)] = 3600
    """End the run after so many seconds without progress (no group of completions, no micro-batch). It reports the
    phase that hangs and the stacks of all threads. 0 waits forever."""

    callbacks: list[Literal["push_to_hub_revision"]] | None = None
    """`push_to_hub_revision`: push the model of each checkpoint to its own branch in `hub_model_id`, named after
    `hub_model_revision` and the step, and submit `benchmarks` for it if Slurm is available (docs/clusters.md)."""

    # --- Benchmarks ---
    benchmarks: list[str] | None = None
    """Benchmarks to run on the trained model (`math_500`, `aime24`, a file ...; see docs/evaluation.md), with the
    system prompt used in training. Results are in `<output_dir>/evaluation/`, and in the metrics."""
    benchmarks_every_n_steps: Annotated[int | None, Range(at_least=1)] = None
    """Also run them every N steps, into `<output_dir>/evaluation/step-NNNNNN/`."""
    benchmarks_data_dir: str | None = None
    """Folder with the benchmarks' problems, as `<name>.jsonl[.gz]` or `.parquet`. Default: the hub."""
    benchmarks_limit: Annotated[int | None, Range(at_least=1)] = None
    """Only the first N problems of each."""
    benchmarks_protocol: Literal["deepseek", "greedy"] = "deepseek"
    """`deepseek` samples at temperature 0.6 and top-p 0.95; `greedy` takes the most likely token, once."""
    benchmarks_num_samples: Annotated[int | None, Range(at_least=1)] = None
    """Samples per problem. Default: the benchmark's own number (64 for AIME, 4 for MATH-500), or 1 if greedy."""
    benchmarks_max_new_tokens: Annotated[int | None, Range(at_least=1)] = None
    """Longest answer in tokens. Default: `max_completion_length` for GRPO, `max_length` for SFT."""

    # --- Chat template and trackers ---
    chat_template: str | None = None
    """Jinja template, or a file that holds one. Default: the tokenizer's own, else ChatML."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `{enable_thinking: false}`. They become the defaults of the saved
    template. A column `chat_template_kwargs` sets them for its row."""
    wandb_entity: str | None = None
    """Entity for Weights & Biases (with `report_to: wandb`)."""
    wandb_project: str | None = None
    """Project for Weights & Biases (with `report_to: wandb`)."""

    @property
    def longest_completion(self) -> int:
        """Tokens of the longest answer that the model is trained to give."""
        raise NotImplementedError

    @property
    def data_parallel_size(self) -> int:
        """Processes, or groups of them that share packs, that have sequences of their own."""
        return max(1, self.world_size // self.sequence_parallel_size)

    def __post_init__(self) -> None:
        if self.dtype is not None:
            self.bf16 = self.dtype == "bfloat16"
        if self.bf16 is None:
            launcher = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
            self.bf16 = not self.fp16 and (launcher or (not self.use_cpu and cuda_has_bf16()))
        check_fields(self)
        if self.max_steps == 0:
            raise UserError("max_steps is 0: give the number of optimizer steps, or -1 to go by num_train_epochs.")
        if self.activation_offloading and not self.gradient_checkpointing:
            raise UserError(
                "activation_offloading is true, but gradient_checkpointing is false, so there are no checkpoints to "
                "offload: set it to true."
            )
        self.remove_unused_columns = False
        self.use_cpu = self.use_cpu or not has_accelerator()
        if not self.use_cpu:
            check_processes_fit()
        if getattr(self, "activation_checkpointing", False) is None:  # the new name, from transformers 5.23 on
            self.activation_checkpointing = self.gradient_checkpointing
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs
        compiles, self.torch_compile = self.torch_compile, False  # accelerate would compile the whole forward pass
        precision = "bf16" if self.bf16 else "fp16" if self.fp16 else "no"
        with patch_environment(ACCELERATE_MIXED_PRECISION=precision):  # these options decide, not the launcher's
            super().__post_init__()
        self.torch_compile = compiles


@dataclass
class SFTConfig(TrainConfig):
    """Supervised fine-tuning on traces."""

    learning_rate: Annotated[float, Range(at_least=0)] = 2e-5
    """Peak learning rate."""
    max_length: Annotated[int, Range(at_least=2)] = 1024
    """Longest sequence in tokens; longer ones are truncated at the end (and counted). With packing, a row's length."""
    packing: bool = False
    """Fill rows of `max_length` tokens with whole documents; `per_device_train_batch_size` then counts rows."""

    # --- What is learned from ---
    assistant_only_loss: bool = False
    """Learn from assistant messages only (conversations)."""
    completion_only_loss: bool | None = None
    """Learn from the `completion` column only (prompt and completion columns). Default: yes."""
    dataset_text_field: str = "text"
    """Column with plain text, when there are neither messages nor prompt and completion columns."""
    dataset_num_proc: int | None = None
    """Processes for tokenizing."""
    eos_token: str | None = None
    """Token that ends a turn, if it is not the tokenizer's own (Qwen2.5 base models: `<|im_end|>`)."""

    # --- Engine ---
    engine: Literal["auto", "native", "transformers"] = "auto"
    """Engine for `benchmarks`. `native`: Open R1's own engine, with a copy of the model while they run.
    `transformers`: the model's own forward pass, which is slow. `auto`: native on CUDA for every model that it
    supports, else transformers."""

    @property
    def longest_completion(self) -> int:
        """Tokens of the longest answer that the model is trained to give."""
        return self.max_length


@dataclass
class GRPOConfig(TrainConfig):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300; R1, arXiv 2501.12948)."""

    learning_rate: Annotated[float, Range(at_least=0)] = 1e-6
    """Peak learning rate."""
    num_generations: Annotated[int, Range(at_least=2)] = 8
    """Completions per prompt. They form the group in which advantages are computed."""
    num_generations_eval: int | None = None
    """Completions per prompt during evaluation. Default: `num_generations`."""
    max_completion_length: Annotated[int, Range(at_least=1)] = 512
    """Longest completion in tokens."""

    # --- Sampling and rounds ---
    temperature: Annotated[float, Range(above=0)] = 1.0
    """Sampling temperature; logprobs are recomputed at the same temperature."""
    top_p: float = 1.0
    """Must be 1: the trainer cannot reproduce a truncated support."""
    top_k: int = 0
    """Must be 0, for the same reason."""
    min_p: float | None = None
    """Must be unset, for the same reason."""
    shuffle_dataset: bool = True
    """Draw prompts in a new random order in every epoch."""
    steps_per_generation: Annotated[int | None, Range(at_least=1)] = None
    """Micro-steps (of `per_device_train_batch_size` completions) that one round of generation feeds.
    A multiple of `gradient_accumulation_steps`, which is the default: one round per optimizer step."""
    num_iterations: Annotated[int, Range(at_least=1)] = 1
    """Optimizer passes over each round of rollouts (μ in DeepSeekMath, algorithm 1)."""

    # --- Loss ---
    beta: Annotated[float, Range(at_least=0)] = 0.0
    """Weight of the KL penalty against the initial model; 0 loads no reference model."""
    use_bias_correction_kl: bool = True
    """Multiply the KL estimate by π/π_old, so that its gradient is unbiased (DeepSeek-V3.2, arXiv 2512.02556)."""
    epsilon: Annotated[float, Range(at_least=0)] = 0.2
    """Lower clipping range of π/π_old; also the upper one, unless `epsilon_high` is given."""
    epsilon_high: Annotated[float | None, Range(at_least=0)] = None
    """Upper clipping range (clip-higher, DAPO, arXiv 2503.14476). With `loss_type: cispo` the upper bound of π/π_old
    itself, which has no default: 5 in ScaleRL (arXiv 2510.13786)."""
    delta: Annotated[float | None, Range(above=0)] = None
    """Upper bound of π/π_old where the advantage is negative (two-sided clipping, INTELLECT-2, arXiv 2505.07291)."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """`sequence` clips one length-normalized ratio per completion (GSPO, arXiv 2507.18071)."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo"] = "dapo"
    """How token losses are averaged; see docs/algorithms.md. `cispo` averages like `dapo`, but clips the weight of each
    token's gradient instead of the token (MiniMax-M1, arXiv 2506.13585)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group, of the whole batch, or not at all."""
    reward_weights: list[float] | None = None
    """Weight of each reward. Default: 1 each."""

    # --- Which rollouts are learned from ---
    filter_groups: bool = False
    """Dynamic sampling (DAPO): replace groups whose rewards are all equal with groups of other prompts."""
    max_num_gen_batches: Annotated[int, Range(at_least=1)] = 10
    """filter_groups: maximum number of times that a round generates, including the first time."""
    max_staleness: Annotated[int, Range(at_least=0)] = 0
    """Rounds of rollouts that are sampled while earlier ones train. It is the largest age of a rollout in rounds, and
    needs an engine on separate GPUs (`engine: vllm`). 0: strictly on-policy. Stale rollouts are corrected by
    `vllm_importance_sampling_correction`."""
    mask_truncated_completions: bool = False
    """Leave completions that hit `max_completion_length` out of the loss (not out of their group's baseline)."""

    # --- Engine ---
    engine: Literal["auto", "native", "vllm", "transformers"] = "auto"
    """Engine that samples completions. `native`: Open R1's own engine, with a copy of the policy on each training GPU.
    `vllm`: vLLM servers, on GPUs that do not train. `transformers`: the policy's own forward pass, which is slow.
    `auto`: vLLM with `use_vllm` and `vllm_mode: server`; else native on CUDA for every model that it supports; else
    transformers."""

    # --- vLLM, and options of the native engine under their names in TRL ---
    use_vllm: bool = False
    """With `vllm_mode: server`, vLLM samples completions. Otherwise the same as `engine: auto`."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """`server`: with `use_vllm`, vLLM servers sample. `colocate`: an engine on the training GPUs, which is not vLLM."""
    vllm_gpu_memory_utilization: Annotated[float, Range(above=0)] = 0.3
    """native: largest share of the GPU's memory for its cache."""
    vllm_enable_sleep_mode: bool = False
    """native: release the cache's memory during training. Each step then waits until it is allocated again."""
    vllm_enforce_eager: bool = False
    """Do not compile (servers started here: do not use CUDA graphs either): starts faster, decodes slower."""
    vllm_max_model_length: Annotated[int | None, Range(at_least=2)] = None
    """Longest prompt plus completion, with any engine; longer prompts are left out. Default: what the data needs."""
    vllm_server_base_url: str | None = None
    """server: addresses of the servers, such as `http://node1:8000`, separated by commas. Default: from
    `vllm_server_host` and `vllm_server_port`."""
    vllm_server_host: str = "127.0.0.1"
    """server: the host, if there is no `vllm_server_base_url`."""
    vllm_server_port: Annotated[int, Range(at_least=1, at_most=65535)] = 8000
    """server: the port."""
    vllm_server_timeout: Annotated[float, Range(at_least=0)] = 240.0
    """server: seconds to wait until it answers."""
    vllm_group_port: Annotated[int, Range(at_least=0, at_most=65535)] = 51216
    """server: port on the training host where servers get new weights; a free one if it is taken."""

    # --- Correction for the sampler ---
    vllm_importance_sampling_correction: bool = True
    """Weight tokens by π_old/π_sampler, because the engine's logprobs differ slightly from the trainer's."""
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "token_truncate"
    )
    """Truncate or drop weights above `vllm_importance_sampling_clip_max`, per token or per sequence."""
    vllm_importance_sampling_clip_max: Annotated[float, Range(above=0)] = 3.0
    """Upper bound of these weights."""

    # --- Health and the transformers engine ---
    stop_on_unhealthy: bool = False
    """End the run, with the reason, when it makes no progress in learning (`report/health.py`). Default: only warn."""
    max_tokens_per_decode: Annotated[int, Range(at_least=1)] = 65536
    """Maximum number of prompt plus completion tokens that the transformers engine decodes at once."""

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model, self.greater_is_better = "reward", True
        super().__post_init__()
        for name, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", None)):
            if getattr(self, name) not in (neutral, None):
                raise UserError(
                    f"{name} is {getattr(self, name)}: GRPO needs {neutral}, because the trainer cannot compute "
                    "the probability of a token under a truncated distribution. Use temperature instead."
                )
        if self.max_staleness and self.filter_groups:
            raise UserError("filter_groups is true, which needs max_staleness 0: rounds ahead are not refilled.")
        if self.max_staleness and not self.vllm_importance_sampling_correction:
            raise UserError(
                f"max_staleness is {self.max_staleness} and vllm_importance_sampling_correction is false, but "
                "rollouts of older weights need the correction: set it to true."
            )
        if self.loss_type == "cispo" and (self.epsilon_high or 0) < 1:
            raise UserError(
                f"epsilon_high is {self.epsilon_high}: with loss_type cispo it is the upper bound of the ratio, so it "
                "must be at least 1 (5 is common)."
            )
        if self.loss_type == "cispo" and self.delta is not None:
            raise UserError(f"delta is {self.delta}, but loss_type cispo does not use it: omit it.")
        if self.steps_per_generation is None:
            self.steps_per_generation = self.gradient_accumulation_steps
        if self.steps_per_generation % self.gradient_accumulation_steps:
            raise UserError(
                f"steps_per_generation is {self.steps_per_generation}: it must be a multiple of "
                f"gradient_accumulation_steps ({self.gradient_accumulation_steps})."
            )

    @property
    def longest_completion(self) -> int:
        """Tokens of the longest answer that the model is trained to give."""
        return self.max_completion_length

    @property
    def uses_vllm_servers(self) -> bool:
        """Whether vLLM servers write the completions."""
        return self.engine == "vllm" or (self.engine == "auto" and self.use_vllm and self.vllm_mode == "server")

    @property
    def max_steps_per_rollout(self) -> int:
        """Optimizer steps that one round of rollouts feeds: distinct batches times passes."""
        assert self.steps_per_generation is not None
        return self.steps_per_generation // self.gradient_accumulation_steps * self.num_iterations
