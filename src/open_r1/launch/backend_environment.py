"""What `accelerate launch` would put into the environment for a configuration file: with it any launcher (torchrun,
srun) starts DDP, DeepSpeed or FSDP2, also on a CPU, where accelerate's own launcher starts one process."""

from pathlib import Path

from open_r1.internals.accelerate import launch_arguments


def backend_environment(config_file: str | Path, processes: int, mixed_precision: str = "no") -> dict[str, str]:
    """The variables that choose and configure the backend."""
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    words = ["--config_file", str(config_file), "--num_processes", str(processes)]
    words += ["--mixed_precision", mixed_precision, "script.py"]
    args = launch_arguments(words)
    args.deepspeed_fields_from_accelerate_config = ""
    environment = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    return {name: value for name, value in environment.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
