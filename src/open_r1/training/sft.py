"""Supervised fine-tuning: negative log-likelihood of marked tokens, packed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from open_r1.configs import SFTConfig
from open_r1.training.batches import StepLoader, StepSampler, rows_at
from open_r1.training.logprobs import TokenLogprobs
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.packing import Pack, TokenFields, TokenSequence, best_fit, tensor_of


class PackedRows:
    """A tokenized dataset seen as rows of several documents each; row i is a list of examples."""

    def __init__(self, dataset: Dataset, rows: Sequence[Sequence[int]]) -> None:
        self.dataset = dataset.with_format(None)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Mapping[str, Any]]:
        return rows_at(self.dataset, self.rows[index])


def packed_rows(dataset: Dataset, args: SFTConfig) -> PackedRows:
    """With `packing`, rows of whole documents that fill `max_length` tokens best; otherwise one document per row."""
    if args.packing:
        lengths = [len(ids) for ids in dataset["input_ids"]]
        return PackedRows(dataset, best_fit(lengths, args.max_length))
    return PackedRows(dataset, [[i] for i in range(len(dataset))])


class SFTTrainer(PackedTrainer):
    """The loss of a step is the mean of -log p over all learned tokens of the step, on all ranks."""

    sums = ("entropy",)
    share_prompts = False

    def steps_per_epoch(self) -> int:
        """Batches of rows."""
        return len(self._sampler())

    def get_train_dataloader(self) -> StepLoader:
        """One list of rows per optimizer step, already this rank's share."""
        return StepLoader(self.train_dataset, self._sampler())  # type: ignore[arg-type]

    def _sampler(self) -> StepSampler:
        return StepSampler(
            len(self.train_dataset),  # type: ignore[arg-type]
            self.args.per_device_train_batch_size * self.data_ranks.world_size,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            shuffle=True,
            drop_last=self.args.dataloader_drop_last,
            rank=self.data_ranks.rank,
            world_size=self.data_ranks.world_size,
        )

    def step_sequences(self, rows: list[list[Mapping[str, Any]]]) -> list[TokenSequence]:
        """Every document of this rank's rows, each learned token weighted by one over their number."""
        documents = [document for row in rows for document in row]
        learned = sum(sum(d["loss_mask"]) for d in documents)
        weight = 1 / max(self.data_ranks.sum(learned), 1)
        return [_sequence(d, weight) for d in documents]

    def pack_loss(self, pack: Pack, out: TokenLogprobs) -> Tensor:
        """Sum of weighted -log p."""
        assert pack.fields.weight is not None
        self.add("entropy", (out.entropies * pack.fields.weight).sum())
        return -(out.logprobs * pack.fields.weight).sum()

    def note_sums(self, sums: dict[str, float]) -> None:
        """As in `PackedTrainer`. Also records the mean entropy of the predictions."""
        super().note_sums(sums)
        self.note("entropy", sums["entropy"])

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean -log p over the learned tokens of the evaluation rows: `eval_loss`."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        mine = [row for i in self.data_ranks.share(len(rows)) for row in rows[i]]
        logprobs = self.sequence_logprobs(self.model_wrapped, [_sequence(d, 1.0) for d in mine], "evaluation")
        total = self.data_ranks.sum(sum(x.sum().item() for x in logprobs))
        count = self.data_ranks.sum(sum(len(x) for x in logprobs))
        metrics = {f"{metric_key_prefix}_loss": -total / max(count, 1)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _sequence(document: Mapping[str, Any], weight: float) -> TokenSequence:
    learn = tensor_of(document["loss_mask"], np.bool_)
    return TokenSequence(
        input_ids=tensor_of(document["input_ids"], np.int64),
        learn=learn,
        fields=TokenFields(weight=torch.full((int(learn.sum()),), weight)),
    )
