"""One vLLM engine in a process of its own: token ids in, token ids and logprobs out.

`python -m open_r1.engine.vllm_worker FD` speaks pickled messages over the socket FD; `vllm_engine.py` is the other
end. vLLM's scheduler and model runner are stepped here without its front end: nothing is detokenized, there is no
object per token, and nothing leaves the process before a completion is finished.
"""

import gc
import os
import queue
import signal
import sys
import threading
import traceback
from array import array
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from open_r1.engine.vllm_messages import Finished, Job, WorkerOptions
from open_r1.engine.vllm_scheduler import FLAT_SCHEDULER
from open_r1.engine.vllm_weights import Bucket, Channel

GRAPH_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batch sizes with a CUDA graph. A batch is padded to the next of them; vLLM's own list is three times as long, and
ends at 512, beyond which every kernel is launched by hand."""

CPU_BATCH = 4096
"""Tokens of prompts that go through the model together on a CPU."""
GPU_BATCH = 8192
"""The same on a GPU, as in `vllm serve`. An engine without a front end would get 2,048."""
REFILL = 8
PATIENCE = 16
"""New sequences join when one in `REFILL` places is free, or some have been for `PATIENCE` steps."""


class Admission:
    """When sequences that wait start. A step that prompts are part of is beyond the sizes of CUDA graphs: with a
    newcomer in every step, all of them would be launched kernel by kernel. Without graphs nobody waits."""

    def __init__(self, places: int, graphs: bool) -> None:
        self.places = places
        self._enough = max(1, places // REFILL) if graphs else 1
        self._waited = 0

    def count(self, running: int, waiting: int) -> int:
        """How many are to start before the next step."""
        possible = min(self.places - running, waiting)
        if possible == 0:
            return 0
        self._waited += 1
        if possible < min(self._enough, waiting) and self._waited <= PATIENCE:
            return 0
        self._waited = 0
        return possible


def gpu_batch(max_num_seqs: int, max_model_len: int) -> int:
    """Tokens that go through the model together on a GPU: as many of each sequence, and of none more than it can have.
    vLLM's trial run deals them out so, gives a remainder to one sequence, and ends with an illegal memory access where
    one is longer than `max_model_len`."""
    return max_num_seqs * max(1, min(GPU_BATCH // max_num_seqs, max_model_len))


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes with a CUDA graph, up to that of a full batch."""
    most = max(8, max_num_seqs)
    return sorted({*(n for n in GRAPH_SIZES if n < most), min(most, GRAPH_SIZES[-1])})


class Worker:
    """Steps a vLLM engine and answers its parent."""

    def __init__(self, connection: Connection, answers: "Answers", options: WorkerOptions) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments: dict[str, Any] = {
            "model": options.model,
            "revision": options.revision,
            "trust_remote_code": options.trust_remote_code,
            "dtype": options.dtype,
            "tensor_parallel_size": options.tensor_parallel,
            "max_model_len": options.max_model_len,
            "max_num_seqs": options.max_num_seqs,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "enforce_eager": options.enforce_eager,
            "enable_sleep_mode": options.sleep_mode,
            "seed": options.seed,
            "logprobs_mode": "processed_logprobs" if options.logprobs else "raw_logprobs",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "disable_log_stats": True,
            "worker_extension_cls": "open_r1.engine.vllm_weights.WeightReceiver",
            "scheduler_cls": FLAT_SCHEDULER,
        }
        if not _on_cuda():  # a prompt in chunks would wind back its request's generator, which torch's on a CPU cannot
            arguments |= {
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(CPU_BATCH, options.max_model_len),
            }
        else:
            arguments |= {
                "max_num_batched_tokens": gpu_batch(options.max_num_seqs, options.max_model_len),
                "worker_cls": "open_r1.engine.vllm_gpu_worker.GPUWorker",
            }
            if not options.enforce_eager:
                arguments["compilation_config"] = {"cudagraph_capture_sizes": graph_sizes(options.max_num_seqs)}
        self.connection, self.answers = connection, answers
        self.engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self.tasks = self.engine.get_supported_tasks()
        self.has_children = options.tensor_parallel > 1
        self.admission = Admission(options.max_num_seqs, graphs=_on_cuda() and not options.enforce_eager)
        self.waiting: deque[Any] = deque()
        """vLLM's requests, in the order they came."""
        self.running: dict[str, tuple[array, array]] = {}
        self.new_tokens = 0
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Answers until told to close, or until the parent is gone."""
        while True:
            while not (self.running or self.waiting) or self.connection.poll():
                name, *arguments = self.connection.recv()
                if name == "close":
                    if self.has_children:  # which would keep their GPUs a while
                        self.engine.engine_core.shutdown()
                    return
                getattr(self, name)(*arguments)
            self.step()

    def step(self) -> None:
        """One decoding step of everything that runs."""
        self.admit()
        finished = []
        for output in self.engine.engine_core.get_output().outputs:
            token_ids, logprobs = self.running[output.request_id]
            token_ids.extend(output.new_token_ids)
            self.new_tokens += len(output.new_token_ids)
            if output.new_logprobs is not None:
                logprobs.extend(output.new_logprobs)
            if output.finish_reason is not None:
                del self.running[output.request_id]
                key = int(output.request_id)
                finished.append(Finished(key, token_ids, logprobs, str(output.finish_reason)))
        if finished or self.new_tokens > 4096:
            self.answers.send(("finished", finished, self.new_tokens))
            self.new_tokens = 0

    def add(self, jobs: list[Job]) -> None:
        """Takes requests."""
        from vllm import SamplingParams

        for job in jobs:
            for index in range(job.n):
                seed = job.sampling["seed"]
                params = SamplingParams(**{**job.sampling, "seed": None if seed is None else seed + index})
                request = self.engine.input_processor.process_inputs(
                    str(job.first_key + index),
                    {"type": "token", "prompt_token_ids": job.prompt_ids},
                    params,
                    supported_tasks=self.tasks,
                )
                self.waiting.append(request)

    def admit(self) -> None:
        """Starts sequences that wait, many at a time."""
        for _ in range(self.admission.count(len(self.running), len(self.waiting))):
            request = self.waiting.popleft()
            self.running[request.request_id] = (array("i"), array("f"))
            self.engine.engine_core.add_request(request)

    def abort(self) -> None:
        """Forgets everything that runs or waits."""
        self.waiting.clear()
        self.engine.engine_core.abort_requests(list(self.running))
        self.running.clear()
        self._done()

    def begin_weights(self, channel: Channel) -> None:
        """New weights follow through `channel`."""
        self.engine.collective_rpc("begin_weights", args=(channel,))
        self._done()

    def load_bucket(self, bucket: Bucket) -> None:
        """Loads the weights that are in the channel now."""
        self.engine.collective_rpc("load_bucket", args=(bucket,))
        self._done()

    def end_weights(self) -> None:
        """The new weights are complete: what was cached with the old ones is forgotten."""
        self.engine.collective_rpc("end_weights")
        self.engine.reset_prefix_cache()
        self._done()

    def checksum(self) -> None:
        """Sum of squares of the weights, as they are now."""
        self._done(self.engine.collective_rpc("checksum")[0])

    def sleep(self) -> None:
        """Frees the cache and the weights, which the next update brings again."""
        self.engine.reset_prefix_cache()
        self.engine.sleep(level=2)
        self._done()

    def wake(self, tag: str) -> None:
        """Takes memory for the `weights` or the `kv_cache` again."""
        self.engine.wake_up([tag])
        self._done()

    def _done(self, value: Any = None) -> None:
        self.answers.send(("done", value))


class Answers:
    """Sends from a thread of its own: a worker that waits for its parent to read, while the parent waits for it to
    read, would wait for ever."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[tuple | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def send(self, message: tuple) -> None:
        """Puts `message` behind those that are not sent yet."""
        self._queue.put(message)

    def finish(self) -> None:
        """Returns when everything is sent."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (message := self._queue.get()) is not None:
                self._connection.send(message)
        except OSError:
            os._exit(0)  # the parent is gone
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # or the parent would wait for ever for what cannot be sent


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    """Builds the engine when told to, then serves."""
    for number in (signal.SIGUSR1, signal.SIGTERM):  # meant for the parent, whose step is finished first
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    answers = Answers(connection)
    try:
        import vllm

        answers.send(("imported", vllm.__version__))
        worker = Worker(connection, answers, connection.recv())
        core = worker.engine.vllm_config
        answers.send(("ready", str(core.model_config.dtype).removeprefix("torch.")))
        worker.serve()
    except (EOFError, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        answers.send(("failed", f"{type(error).__name__}: {error}"))
        answers.finish()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # vLLM's threads and the interpreter's teardown have nothing left to do


if __name__ == "__main__":
    main()
