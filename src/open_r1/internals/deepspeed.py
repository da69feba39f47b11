"""Private names of DeepSpeed."""


def disable_shared_memory_reduction() -> None:
    """Makes DeepSpeed on a CPU reduce with gloo instead of an operation that it compiles. Call it before the process
    group is created.

    `ops.__compatible_ops__`: there is no public switch. The compilation needs a minute and a C++ compiler, and waits
    forever if a compilation that was killed has left its lock.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
