"""`python -m vllm.entrypoints.cli.main serve MODEL ...` over Ray: a stand-in, since vLLM for the CPU does not take Ray.

Its layers lie on as many nodes as --pipeline-parallel-size says, and each answer names the nodes that it came through.
"""

import argparse
import sys
from pathlib import Path

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

sys.path.insert(0, str(Path(__file__).parents[5]))
from fake_openai import FakeServer


@ray.remote(num_cpus=1)
class Layers:
    def forward(self, hidden):
        return [*hidden, ray.get_runtime_context().get_node_id()]


parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["serve"])
parser.add_argument("model")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--tensor-parallel-size", type=int)
parser.add_argument("--pipeline-parallel-size", type=int)
parser.add_argument("--distributed-executor-backend", choices=["ray"], required=True)
args = parser.parse_args()

ray.init()
group = placement_group([{"CPU": 1}] * args.pipeline_parallel_size, strategy="STRICT_SPREAD")
ray.get(group.ready())
pipeline = [
    Layers.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, i)).remote()
    for i in range(args.pipeline_parallel_size)
]


def answer(question):
    nodes = []
    for layers in pipeline:
        nodes = layers.forward.remote(nodes)
    return " ".join(ray.get(nodes))


FakeServer(port=args.port, model=args.model, slow=0.05, answer=answer).serve_forever()
