import torch

from open_r1.training.memory import peak_gib


def test_the_peak_grows_with_what_is_held_and_stays():
    before = peak_gib(torch.device("cpu"))
    held = torch.ones(int(before * 2**30) // 4 + 2**26)  # as much as the peak so far, and 256 MiB
    during = peak_gib(torch.device("cpu"))
    assert during > before + 0.2
    assert during < 2**10
    del held
    assert peak_gib(torch.device("cpu")) == during
