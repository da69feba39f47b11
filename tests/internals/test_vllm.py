"""What of vLLM is private and used (make test-vllm)."""

import pytest
from torch import nn

from open_r1.internals.vllm import keeps_weights_as_loaded


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


@pytest.mark.vllm
def test_vllm_has_them():
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    from open_r1.internals.vllm import schedulers

    assert callable(finalize_layerwise_reload) and callable(initialize_layerwise_reload)
    assert ParallelLMHead.__name__ == "ParallelLMHead"
    for scheduler in schedulers():
        for method in ("add_request", "update_from_output", "finish_requests"):
            assert callable(getattr(scheduler, method))
