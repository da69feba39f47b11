"""vLLM's scheduler, but reporting whole completions instead of single tokens.

It reports a completion to the front end twice: when it starts and when it is finished. vLLM itself reports every token
of every completion, with three arrays per logprob, and packs, unpacks and inspects each report. Our route (`tokens.py`)
waits for whole completions and does not need that.
"""

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from open_r1.internals.vllm import schedulers

SCHEDULER = "open_r1.engine.vllm.scheduler.scheduler"
WHOLE = "open_r1_whole"
"""Key in the `extra_args` of requests that wait for whole completions. Such a request must not have stop strings, which
the front end searches for, nor logprobs of other tokens than the sampled ones."""


def scheduler(*, vllm_config: Any, **options: Any) -> Any:
    """The factory for `--scheduler-cls`: the scheduler that vLLM would choose, with `WholeCompletions` mixed in."""
    one, ahead = schedulers()
    chosen = ahead if vllm_config.scheduler_config.async_scheduling else one
    return type(f"Whole{chosen.__name__}", (WholeCompletions, chosen), {})(vllm_config=vllm_config, **options)


class WholeCompletions:
    """A mixin for vLLM's schedulers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._held: dict[str, _HeldTokens] = {}

    def add_request(self, request: Any) -> None:
        """Adds a request, and notes whether it waits for whole completions."""
        super().add_request(request)  # type: ignore[misc]
        if request.sampling_params is not None and WHOLE in (request.sampling_params.extra_args or ()):
            self._held[request.request_id] = _HeldTokens()

    def update_from_output(self, *step: Any) -> dict[int, Any]:
        """The outputs of a step for each front end, without those that are held back."""
        reports = super().update_from_output(*step)  # type: ignore[misc]
        if not self._held:
            return reports
        for outputs in reports.values():
            outputs.outputs = [output for output in outputs.outputs if self._is_reported(output)]
        return {
            client: outputs
            for client, outputs in reports.items()
            if outputs.outputs or outputs.finished_requests or outputs.scheduler_stats is not None
        }

    def finish_requests(self, *arguments: Any) -> Any:
        """Forgets aborted requests."""
        finished = super().finish_requests(*arguments)  # type: ignore[misc]
        requests: Iterable[str] = self.requests  # type: ignore[attr-defined]
        self._held = {name: held for name, held in self._held.items() if name in requests}
        return finished

    def _is_reported(self, output: Any) -> bool:
        """Whether to report the output now, with all tokens held back so far. If not, holds its tokens back."""
        held = self._held.get(output.request_id)
        if held is None:
            return True
        finished = output.finish_reason is not None
        if held.started and not finished and not output.events:
            held.add(output)
            return False
        held.started = True
        if held.token_ids:
            held.add(output)
            held.move_to(output)
        if finished:
            del self._held[output.request_id]
        return True


class _HeldTokens:
    """Tokens of a request that have not been reported yet, with their logprobs and experts."""

    def __init__(self) -> None:
        self.started = False
        self.token_ids, self.logprobs = array("i"), array("f")
        self.form: Any = None
        """A tuple of arrays in which vLLM reports logprobs."""
        self.experts: list[np.ndarray] = []

    def add(self, output: Any) -> None:
        self.token_ids.extend(output.new_token_ids)
        if output.new_logprobs is not None:
            self.form = output.new_logprobs
            self.logprobs.extend(self.form.logprobs[:, 0].tolist())
        if output.routed_experts is not None:
            self.experts.append(output.routed_experts)

    def move_to(self, output: Any) -> None:
        output.new_token_ids = self.token_ids.tolist()
        if self.form is not None:
            output.new_logprobs = self.form._replace(
                logprob_token_ids=np.array(self.token_ids)[:, None],
                logprobs=np.array(self.logprobs)[:, None],
                sampled_token_ranks=np.zeros(len(self.token_ids), "i4"),  # not requested
            )
        if self.experts:
            output.routed_experts = np.concatenate(self.experts)
        self.token_ids, self.logprobs, self.experts = array("i"), array("f"), []
