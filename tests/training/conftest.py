"""What the tests of this folder share."""

import odd_rewards
import pytest


@pytest.fixture(autouse=True)
def uncounted_rewards():
    """Rewards that count their calls begin at none in every test."""
    odd_rewards.CALLS.clear()
