"""The rollout engine: decoding without host work per token, over the policy's own modules.

`scheduler.py` (which completions run, on which pages) is plain Python; `slots.py`, `attention.py` and `sampler.py` are
one decoding step on the device; `decoder.py` makes that step one CUDA graph; `engine.py` is the loop around it.
"""
