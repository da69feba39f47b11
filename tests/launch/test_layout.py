import pytest

from open_r1.errors import UserError
from open_r1.launch.layout import Cluster, Job, Layout, Ports, Server, plan_layout, state_bytes
from open_r1.run.model_size import tensor_parallel

GRPO = {"task": "grpo", "num_generations": 8, "per_device_batch": 8, "accumulation": 2}


def plan(nodes=1, gpus=8, generation="server", processes=None, gpu_memory=80 * 2**30, ports=None, **job) -> Layout:
    return plan_layout(Cluster(nodes, gpus, processes, gpu_memory), Job(generation=generation, **GRPO | job), ports)


def test_a_node_of_eight_trains_on_seven_and_generates_on_one():
    layout = plan(parameters=1_500_000_000)
    assert layout.train == ((0, 1, 2, 3, 4, 5, 6),)
    assert layout.servers == (Server(0, (7,), 8000),)
    assert layout.batch == 8 * 2 * 7
    assert layout.notes == ()


def test_one_gpu_does_both():
    layout = plan(gpus=1, generation="colocate")
    assert (layout.train, layout.servers, layout.processes) == (((0,),), (), 1)


@pytest.mark.parametrize("generation", ["none", "policy", "colocate", "external"])
def test_without_servers_every_gpu_trains(generation):
    layout = plan(nodes=2, gpus=4, generation=generation)
    assert layout.train == ((0, 1, 2, 3),) * 2
    assert layout.servers == ()


def test_processes_that_share_packs_count_once_in_the_batch():
    layout = plan(nodes=2, generation="colocate", sequence_parallel=4, attention_heads=28)
    assert (layout.processes, layout.groups, layout.batch) == (16, 4, 8 * 2 * 4)


def test_the_last_of_several_nodes_generates_on_all_its_gpus():
    layout = plan(nodes=2, parameters=7_000_000_000)
    assert layout.train == (tuple(range(8)),)
    assert [server.node for server in layout.servers] == [1] * 8
    assert [server.port for server in layout.servers] == list(range(8000, 8008))
    assert {server.gpus for server in layout.servers} == {(i,) for i in range(8)}


def test_70b_takes_eight_gpus_of_80_gib_and_four_of_141():
    layout = plan(nodes=4, parameters=70_600_000_000, attention_heads=64, accelerator="zero3")
    assert layout.servers == (Server(3, tuple(range(8)), 8000),)
    assert len(layout.train) == 3
    assert layout.processes == 24
    larger = plan(nodes=4, parameters=70_600_000_000, attention_heads=64, gpu_memory=141 * 2**30, accelerator="zero3")
    assert [server.gpus for server in larger.servers] == [(4, 5, 6, 7), (0, 1, 2, 3)]


def test_generators_fill_nodes_from_the_last_one_on():
    layout = plan(nodes=3, tensor_parallel=4, data_parallel=3)
    assert [(s.node, s.gpus, s.port) for s in layout.servers] == [
        (2, (4, 5, 6, 7), 8000),
        (2, (0, 1, 2, 3), 8001),
        (1, (4, 5, 6, 7), 8000),
    ]
    assert len(layout.train) == 1
    assert layout.idle() == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert "GPU 0,1,2,3 of node 1 is idle" in layout.notes[0]


@pytest.mark.parametrize(("tp", "dp"), [(1, 3), (2, 1), (3, 2), (4, 1)])
def test_on_one_node_no_gpu_has_two_jobs(tp, dp):
    layout = plan(tensor_parallel=tp, data_parallel=dp, num_generations=2)
    taken = [gpu for server in layout.servers for gpu in server.gpus] + list(layout.train[0])
    assert sorted(taken) == list(range(8))
    assert len({server.port for server in layout.servers}) == dp


@pytest.mark.parametrize(
    ("parameters", "heads", "memory", "size"),
    [(1.5e9, 12, 80, 1), (7.6e9, 28, 80, 1), (14.8e9, 40, 80, 1), (32.8e9, 40, 80, 2), (7.6e9, 28, 24, 2)],
)
def test_a_generator_takes_as_few_gpus_as_hold_it(parameters, heads, memory, size):
    assert tensor_parallel(int(parameters), heads, 8, memory * 2**30) == size


def test_a_generator_s_gpus_divide_its_attention_heads():
    with pytest.raises(UserError, match=r"70\.0B parameters needs"):
        tensor_parallel(70 * 10**9, 12, 8, 80 * 2**30)


def test_processes_run_on_the_cpu_where_there_is_no_gpu():
    layout = plan(gpus=0, generation="policy", processes=2)
    assert layout.train == ((0, 1),)
    assert layout.on_cpu
    assert plan(gpus=0, generation="server").servers == (Server(0, (), 8000),)


def test_ports_follow_the_first_one():
    layout = plan(tensor_parallel=1, data_parallel=2, num_generations=2, ports=Ports(server=9000))
    assert [server.port for server in layout.servers] == [9000, 9001]


def test_memory_that_sharding_would_save_is_said():
    notes = plan(generation="colocate", parameters=7_600_000_000).notes
    assert "113 GiB" in notes[0]
    assert "zero3" in notes[0]
    assert plan(generation="colocate", parameters=7_600_000_000, accelerator="zero3").notes == ()
    assert plan(generation="colocate", parameters=7_600_000_000, adapters=True).notes == ()
    assert "LoRA" in plan(generation="colocate", parameters=70_000_000_000, accelerator="fsdp").notes[0]


def test_states_are_split_as_the_accelerator_says():
    def states(accelerator):
        return state_bytes(Job("sft", "none", parameters=100, accelerator=accelerator), 4)

    assert [states(name) for name in ("ddp", "zero2", "zero3", "fsdp")] == [1600, 700, 400, 400]
    assert states("mine.yaml") is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"processes": 8}, "--processes is 8, but only 7 GPUs can train on a node of 8 (the others generate)"),
        ({"generation": "colocate", "processes": 9}, "--processes is 9, but only 8 GPUs"),
        ({"num_generations": 6, "processes": 7}, "num_generations is 6, which does not divide the 112 completions"),
        ({"gpus": 1}, "leave none of the 1 GPUs for training"),
        ({"tensor_parallel": 16}, "--tp is 16, but a node has 8 GPUs"),
        ({"tensor_parallel": 8}, "leave none of the 8 GPUs for training"),
        ({"tensor_parallel": 4, "attention_heads": 14}, "--tp is 4, which does not divide the model's 14"),
        ({"nodes": 2, "data_parallel": 9}, "a node generates or trains"),
        ({"parameters": 670_000_000_000}, "set --tp"),
        (
            {"sequence_parallel": 2},
            "sequence_parallel_size is 2, which does not divide the 7 training processes of a node: give --processes 6",
        ),
        ({"sequence_parallel": 3, "attention_heads": 28}, "does not divide the model's 28 attention heads"),
        (
            {"sequence_parallel": 4, "generation": "colocate", "per_device_batch": 5, "accumulation": 1},
            "which does not divide the 10 completions of a step (per_device_train_batch_size 5 x "
            "gradient_accumulation_steps 1 x 2 groups of 4 processes)",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, sentence):
    with pytest.raises(UserError) as error:
        plan(**options)
    assert sentence in str(error.value)


def test_layouts_that_the_docs_call_slow_are_noted_with_what_to_take_instead():
    slow = plan(nodes=4, generation="policy", parameters=7_600_000_000, accelerator="zero3")
    assert "with a copy of the model in each process, which is slow: set engine to auto" in slow.notes[0]
    assert "--accelerator fsdp" in slow.notes[1]
    assert not plan(nodes=2, generation="server", parameters=1_500_000_000, accelerator="fsdp").notes
    assert not plan(gpus=1, generation="policy", parameters=135_000_000).notes
    assert not plan(gpus=0, processes=2, generation="policy", parameters=135_000_000).notes


def test_a_batch_that_grew_with_the_nodes_at_the_recipe_s_rate_is_noted():
    grown = {"generation": "colocate", "recipe_learning_rate": 1e-6, "accumulation": 4}
    (note,) = plan(nodes=4, **grown).notes
    assert "a step has 1,024 sequences, 4 times as many as on one node, but learning_rate is the recipe's 1e-06" in note
    assert "--gradient_accumulation_steps 1, unless" in note
    assert not plan(nodes=3, **grown).notes
    assert not plan(nodes=4, **grown | {"recipe_learning_rate": None}).notes
