"""Fingerprints by which `datasets` finds cached results again, in every process and every run."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from open_r1.internals.datasets import rows_fingerprint


def fingerprint(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *settings: Any) -> str:
    """A hash of the rows, the tokenizer, its chat template, `settings` and the code of `open_r1.data`.

    The fingerprint that `datasets` computes by itself is not stable: padding anything changes a tokenizer's state.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        vocabulary = json.dumps(json.loads(backend.to_str()) | {"padding": None, "truncation": None})
    else:
        vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    special = (tokenizer.special_tokens_map, tokenizer.chat_template)
    return Hasher.hash((rows_fingerprint(dataset), vocabulary, special, settings, code))
