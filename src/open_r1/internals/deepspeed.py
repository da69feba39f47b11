"""Private names of DeepSpeed."""


def disable_shared_memory_reduction() -> None:
    """Before the process group begins: on a CPU DeepSpeed sums with gloo instead of an operation that it compiles.

    `ops.__compatible_ops__`: there is no public switch. The compilation takes a minute and a C++ compiler, and waits
    without end if a compilation that was killed has left its lock.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
