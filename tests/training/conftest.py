"""What the tests of this folder share."""

import gc

import odd_rewards
import pytest


@pytest.fixture(autouse=True)
def uncounted_rewards():
    """Rewards that count their calls begin at none in every test."""
    odd_rewards.CALLS.clear()


@pytest.fixture(autouse=True, scope="module")
def short_collections():
    """Every trainer collects garbage when it begins: what the libraries keep anyway need not be searched each time."""
    gc.collect()
    gc.freeze()
