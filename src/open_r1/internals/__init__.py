"""Private names of other libraries that this code needs, one module per library, each with the reason.

Nothing outside this package uses such a name, except methods of `Trainer` that `PackedTrainer` overrides and
`transformers.OVERRIDDEN` lists. `tests/internals/` fails when a library drops one or changes what it does.
"""
