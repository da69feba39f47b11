"""Triton kernels of a decoding step, generic in their data type. What each computes is specified by the plain torch
function beside its caller."""
