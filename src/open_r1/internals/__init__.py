"""Private names of other libraries that we cannot avoid, one module per library, each with a reason.

No other package uses such names, except the methods of `Trainer` that `PackedTrainer` overrides, which
`transformers.OVERRIDDEN` lists. `tests/internals/` fails if a library drops a name or changes what it does.
"""
