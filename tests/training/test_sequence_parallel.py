"""Packs whose tokens are split over processes: the loss and gradients of one process."""

import pytest
import shared_packs
import torch
from runs import launch_script
from shared_packs import CASES, HEADS, SEQUENCES, loss_and_gradients
from tiny_models import make


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What four processes compute, in groups of two and of four."""
    path = tmp_path_factory.mktemp("shared") / "found.pt"
    launch_script(shared_packs.__file__, [path], processes=4)
    return torch.load(path)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_loss_and_every_gradient_equal_those_of_one_process(found, size, case):
    kind, name, _ = case
    loss, entropies, wanted = loss_and_gradients(make(kind, **HEADS), SEQUENCES[name])
    shared_loss, shared_entropies, gradients = found[size, *case]
    assert shared_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(shared_entropies, entropies, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(
            gradients[parameter], gradient, rtol=1e-3, atol=2e-5 * gradient.abs().max().item(), msg=parameter
        )
