"""What each room (a package or module right below `open_r1`) may import, also inside functions.

`CONTRIBUTING.md` says why. A room that is not in `ROOMS` is where rooms meet, and only such places import it.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import open_r1

ROOT = Path(open_r1.__file__).parent
BASE = {"", "devices", "errors", "files", "hub", "installing", "internals", "processes", "progress_bars"}
"""What every room may import; these import only each other. "" is `open_r1` itself."""
ROOMS = {
    "options": set(),
    "modeling": set(),
    "rewards": set(),
    "configs": {"options", "rewards.options"},
    "data": {"configs", "options"},
    "report": {"configs", "options"},
    "engine": {"options", "data", "modeling"},
    "sampling": {"engine", "rewards", "report"},
    "training": {"configs", "engine.protocol", "modeling", "rewards", "report"},
    "evaluation": {"options", "data", "engine", "rewards", "report", "sampling"},
    "generation": {"options", "data", "engine", "rewards", "report", "sampling"},
    "curation": {"options", "configs", "data", "engine", "rewards", "report", "sampling", "generation"},
    "run": {"options", "configs", "data", "modeling", "rewards", "report", "engine", "training", "evaluation"},
}
"""Rooms, or single modules of them, that a room may import besides `BASE` and itself."""
MEETING_PLACES = {"", "cli", "sft", "grpo", "generate", "evaluate", "demo", "launch"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def room_of(module):
    return module.partition(".")[0]


def imported(tree, skip_types=False):
    """Modules of this package that `tree` imports, as `(name, line)`."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if skip_types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "open_r1":
                parent = rest.rpartition(".")[0]
                yield (rest if rest in SOURCES else parent), node.lineno


def is_allowed(module, target):
    room, allowed = room_of(module), BASE
    if room not in BASE:
        allowed = BASE | ROOMS[room]
    return room_of(target) in allowed | {room} or target in allowed


@pytest.mark.parametrize("room", [*ROOMS, *sorted(BASE - {""})])
def test_a_room_imports_only_what_it_may(room):
    modules = [module for module in SOURCES if room_of(module) == room]
    assert modules
    wrong = [
        f"{module}, line {line}: {target}"
        for module in modules
        for target, line in imported(SOURCES[module])
        if not is_allowed(module, target)
    ]
    assert not wrong


def test_every_module_is_in_a_room_or_where_rooms_meet():
    assert {room_of(module) for module in SOURCES} == set(ROOMS) | BASE | MEETING_PLACES


def test_the_test_sees_imports_inside_functions():
    tree = ast.parse("def f():\n    from open_r1.training import losses\n    import open_r1.training.grpo\n")
    targets = [target for target, _ in imported(tree)]
    assert sorted(targets) == ["training.grpo", "training.losses"]
    assert not any(is_allowed("rewards.accuracy", target) for target in targets)


def test_modules_do_not_import_in_circles():
    graph = {module: {target for target, _ in imported(tree, skip_types=True)} for module, tree in SOURCES.items()}
    reach = {module: reachable(graph, module) for module in graph}
    circles = {
        frozenset(other for other in graph if other in reach[module] and module in reach[other])
        for module in graph
        if module in reach[module]
    }
    assert not circles


def test_the_walk_of_a_prompt_names_what_is_there():
    guide = (ROOT.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([\w/]+)\.py` \| `(\w+)` \|", guide)
    assert len(rows) > 10
    for path, name in rows:
        kinds = (ast.FunctionDef, ast.ClassDef)
        defined = {node.name for node in ast.walk(SOURCES[path.replace("/", ".")]) if isinstance(node, kinds)}
        assert name in defined, f"{path}.py has no {name}"


def reachable(graph, start):
    found, waiting = set(), list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += graph.get(module, ())
    return found


def test_rewards_never_load_torch():
    modules = [f"open_r1.{module}" for module in SOURCES if room_of(module) == "rewards"]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


DOCUMENTED = {"os._exit", "self.form._replace"}
"""Names of the standard library that begin with an underscore and are public: the second is a named tuple's."""


def test_private_names_of_libraries_stay_in_internals():
    from open_r1.internals.transformers import OVERRIDDEN

    found = []
    for module, tree in SOURCES.items():
        if room_of(module) == "internals":
            continue
        if module == "rewards.code.inside":
            continue  # ends an interpreter in its own way; it runs in the sandbox, where nothing of ours is to import
        for node in ast.walk(tree):
            name = foreign_private_name(node)
            if name is not None and name not in OVERRIDDEN and name not in DOCUMENTED:
                found.append(f"{module}, line {node.lineno}: {name}")
    assert not found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("dataset._fingerprint", "dataset._fingerprint"),
        ("trainer.accelerator._step", "trainer.accelerator._step"),
        ("super()._save", "_save"),
        ("from torch.fx import _config", "_config"),
        ("self._rows", None),
        ("model.__dict__", None),
        ("from open_r1.options.help import _wrap", None),
    ],
)
def test_the_test_sees_private_names(code, expected):
    (statement,) = ast.parse(code).body
    node = statement.value if isinstance(statement, ast.Expr) else statement
    assert foreign_private_name(node) == expected


def foreign_private_name(node):
    """The name after `super()`; the whole expression after anything but `self` and `cls`."""
    if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("open_r1"):
        return next((alias.name for alias in node.names if is_private(alias.name)), None)
    if not isinstance(node, ast.Attribute) or not is_private(node.attr):
        return None
    owner = ast.unparse(node.value)
    if owner == "super()":
        return node.attr
    return None if owner in ("self", "cls") or owner.startswith("self._") else f"{owner}.{node.attr}"


def is_private(name):
    return name.startswith("_") and not name.endswith("__")
