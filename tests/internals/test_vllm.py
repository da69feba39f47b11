"""What of vLLM is private and used, and why (make test-vllm)."""

import ast
import importlib
from functools import reduce
from pathlib import Path

import pytest
from torch import nn

import open_r1
from open_r1.internals.vllm import keeps_weights_as_loaded

PUBLIC = {"vllm", "vllm.sampling_params"}
"""Modules with what vLLM documents and our code imports: `SamplingParams` and `RequestOutputKind`."""
SCHEDULER = "completions are reported whole: `--scheduler-cls` is documented, what a scheduler consists of is not"
RELOAD = "vLLM rearranges the weights of experts and of layers for CPUs, and its own weight transfer knows no gloo"
TIED_HEAD = "on a CPU a tied head is computed from a packed copy, which a reload does not renew"
ROUTE = "the route for token ids reads logprobs as arrays"
SERVER = "`vllm serve` does not start from the package for CPUs"
PRIVATE = {
    "vllm.v1.core.sched.scheduler": (
        SCHEDULER,
        ["Scheduler.add_request", "Scheduler.update_from_output", "Scheduler.finish_requests"],
    ),
    "vllm.v1.core.sched.async_scheduler": (SCHEDULER, ["AsyncScheduler.update_from_output"]),
    "vllm.v1.engine": (
        SCHEDULER,
        [
            *(f"EngineCoreOutput.{name}" for name in ("request_id", "new_token_ids", "new_logprobs", "finish_reason")),
            "EngineCoreOutput.events",
            *(f"EngineCoreOutputs.{name}" for name in ("outputs", "finished_requests", "scheduler_stats")),
        ],
    ),
    "vllm.v1.outputs": (
        SCHEDULER,
        [f"LogprobsLists.{name}" for name in ("logprob_token_ids", "logprobs", "sampled_token_ranks")],
    ),
    "vllm.model_executor.model_loader.reload": (RELOAD, ["initialize_layerwise_reload", "finalize_layerwise_reload"]),
    "vllm.model_executor.layers.vocab_parallel_embedding": (
        TIED_HEAD,
        ["ParallelLMHead", "UnquantizedEmbeddingMethod.process_weights_after_loading"],
    ),
    "vllm.logprobs": (ROUTE, ["FlatLogprobs"]),
    "vllm.entrypoints.openai.api_server": (SERVER, []),
    "vllm.entrypoints.cli.main": (SERVER, []),
}
"""Module: the reason, and names in it. Attributes of a running server (`app.state.engine_client`, a worker's
`model_runner`, `device` and `rank`) are used by tests/engine/vllm/test_server.py."""


def test_our_code_imports_no_other_module_of_vllm():
    imported = set()
    for path in Path(open_r1.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("vllm."):
                imported.add(node.value)  # started with `python -m`
    of_vllm = {name for name in imported if name.split(".")[0] == "vllm"}
    assert len(of_vllm) > 3
    assert of_vllm <= PUBLIC | set(PRIVATE)


@pytest.mark.vllm
@pytest.mark.parametrize("module", PRIVATE)
def test_vllm_has_what_is_private_and_used(module):
    reason, names = PRIVATE[module]
    found = importlib.import_module(module)
    for name in names:
        assert reduce(getattr, name.split("."), found) is not None, reason


@pytest.mark.vllm
def test_vllms_own_weight_transfer_cannot_replace_ours_yet():
    """docs/vllm.md says why; look again if this fails."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory, nccl_engine

    engines = {name: load() for name, load in WeightTransferEngineFactory._registry.items()}
    assert not [name for name in engines if "gloo" in name or "cpu" in name]
    assert not hasattr(nccl_engine.NCCLWeightTransferEngine, "trainer_send_weights")  # the sender of 0.24
    with pytest.raises(TypeError, match="packed"):  # as 0.24 has it
        nccl_engine.NCCLWeightTransferUpdateInfo(names=[], dtype_names=[], shapes=[], packed=True)


def test_weights_are_loaded_over_where_no_layer_rearranges_them():
    class UnquantizedLinearMethod:
        pass

    class Fp8LinearMethod:
        pass

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert keeps_weights_as_loaded(model)
    model[0].quant_method = UnquantizedLinearMethod()
    assert keeps_weights_as_loaded(model)
    model[1].quant_method = Fp8LinearMethod()
    assert not keeps_weights_as_loaded(model)
    experts = nn.Linear(2, 2)
    experts.w13_weight = nn.Parameter(experts.weight.detach())
    assert not keeps_weights_as_loaded(nn.Sequential(experts))
