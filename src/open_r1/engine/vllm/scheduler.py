"""vLLM's own scheduler, telling less of each token.

In a server it tells the front end of a completion twice: when it begins, and when it is finished. vLLM tells of every
token of every completion: packed there, unpacked and looked at here, with three arrays for each logprob. Who waits for
whole completions, as our route does (`tokens.py`), has no use for that.
"""

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from open_r1.internals.vllm import schedulers

SCHEDULER = "open_r1.engine.vllm.scheduler.scheduler"
WHOLE = "open_r1_whole"
"""Key in the `extra_args` of requests that wait for whole completions. They may have no stop strings, which the front
end looks for, and logprobs of the sampled tokens alone."""


def scheduler(*, vllm_config: Any, **options: Any) -> Any:
    """What vLLM's `--scheduler-cls` names: the scheduler that it would have taken, with completions held back."""
    one, ahead = schedulers()
    chosen = ahead if vllm_config.scheduler_config.async_scheduling else one
    return type(f"Whole{chosen.__name__}", (WholeCompletions, chosen), {})(vllm_config=vllm_config, **options)


class WholeCompletions:
    """Mixed into a scheduler of vLLM's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._held: dict[str, _Held] = {}

    def add_request(self, request: Any) -> None:
        """Notes whether it waits for whole completions."""
        super().add_request(request)  # type: ignore[misc]
        if request.sampling_params is not None and WHOLE in (request.sampling_params.extra_args or ()):
            self._held[request.request_id] = _Held()

    def update_from_output(self, *step: Any) -> dict[int, Any]:
        """What each front end is told after a step."""
        told = super().update_from_output(*step)  # type: ignore[misc]
        if not self._held:
            return told
        for outputs in told.values():
            outputs.outputs = [output for output in outputs.outputs if self._is_told(output)]
        return {
            client: outputs
            for client, outputs in told.items()
            if outputs.outputs or outputs.finished_requests or outputs.scheduler_stats is not None
        }

    def finish_requests(self, *asked: Any) -> Any:
        """Forgets what is aborted."""
        finished = super().finish_requests(*asked)  # type: ignore[misc]
        requests: Iterable[str] = self.requests  # type: ignore[attr-defined]
        self._held = {name: held for name, held in self._held.items() if name in requests}
        return finished

    def _is_told(self, output: Any) -> bool:
        """False: its tokens are held. An output with more to tell takes along what was held before."""
        held = self._held.get(output.request_id)
        if held is None:
            return True
        finished = output.finish_reason is not None
        if held.begun and not finished and not output.events:
            held.add(output)
            return False
        held.begun = True
        if held.token_ids:
            held.add(output)
            held.move_to(output)
        if finished:
            del self._held[output.request_id]
        return True


class _Held:
    """Tokens, and their logprobs, of which the front end was not told yet."""

    def __init__(self) -> None:
        self.begun = False
        self.token_ids, self.logprobs = array("i"), array("f")
        self.form: Any = None
        """vLLM's tuple of arrays for logprobs."""

    def add(self, output: Any) -> None:
        self.token_ids.extend(output.new_token_ids)
        if output.new_logprobs is not None:
            self.form = output.new_logprobs
            self.logprobs.extend(self.form.logprobs[:, 0].tolist())

    def move_to(self, output: Any) -> None:
        output.new_token_ids = self.token_ids.tolist()
        if self.form is not None:
            output.new_logprobs = self.form._replace(
                logprob_token_ids=np.array(self.token_ids)[:, None],
                logprobs=np.array(self.logprobs)[:, None],
                sampled_token_ranks=np.zeros(len(self.token_ids), "i4"),  # which nobody asks for
            )
        self.token_ids, self.logprobs = array("i"), array("f")
