"""The kernels of flash-attn-4 by formula, for a machine without GPUs."""

from concurrent.futures import ThreadPoolExecutor

import torch

from open_r1.modeling.attention import ScoreRule


class PlainKernels:
    """Stands for the package: the same two functions, computed by formula."""

    def __init__(self):
        self.calls = 0

    def _out(self, q, k, v, cu_q, cu_k, sinks, options):
        parts = []
        window = options["window_size_left"]
        for i in range(len(cu_q) - 1):
            queries = q[cu_q[i] : cu_q[i + 1]]
            ks, vs = (x[cu_k[i] : cu_k[i + 1]].repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
            scores = torch.einsum("qhd,khd->hqk", queries, ks) * options["softmax_scale"]
            if options["softcap"]:
                scores = options["softcap"] * torch.tanh(scores / options["softcap"])
            mask = ScoreRule(None if window is None else window + 1).mask(len(queries), len(ks), q.device)
            if mask is None:
                mask = torch.ones(len(queries), len(ks), dtype=torch.bool).tril()
            scores = scores.masked_fill(~mask, -torch.inf)
            if sinks is not None:
                scores = torch.cat([sinks[:, None, None].expand(-1, len(queries), 1), scores], -1)
            shares = scores.softmax(-1)[..., -len(ks) :]
            parts.append(torch.einsum("hqk,khd->qhd", shares, vs))
        return torch.cat(parts)

    def forward(self, q, k, v, *, cu_seqlens_q, cu_seqlens_k, learnable_sink, return_lse, **options):
        self.calls += 1
        out = self._out(q, k, v, cu_seqlens_q, cu_seqlens_k, learnable_sink, options)
        return out, torch.zeros(q.shape[1], len(q)), None, None, None

    def backward(
        self, q, k, v, out, grad, lse, *, cu_seqlens_q, cu_seqlens_k, learnable_sink, deterministic, **options
    ):
        inputs = [x.detach().requires_grad_() for x in (q, k, v, learnable_sink) if x is not None]

        def differentiate():
            sinks = inputs[3] if learnable_sink is not None else None
            again = self._out(*inputs[:3], cu_seqlens_q, cu_seqlens_k, sinks, options)
            return torch.autograd.grad(again, inputs, grad)

        with ThreadPoolExecutor(1) as thread:  # inside an operation, this thread records no gradients
            return thread.submit(differentiate).result()
