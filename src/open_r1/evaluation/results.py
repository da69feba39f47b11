"""Computes metrics from samples, and makes a table of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from open_r1.evaluation.metrics import (
    Estimate,
    consensus,
    in_percent,
    mean_with_interval,
    pass_at_1,
    pass_at_k,
    percentile,
    share,
    vote_credit,
)
from open_r1.evaluation.reported import reported_for
from open_r1.rewards import grade_many
from open_r1.sampling.journal import Row


def summarise(
    rows: Sequence[Row],
    ks: Sequence[int] = (),
    *,
    votes: bool = True,
    groups: Mapping[int, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The metrics of graded samples, with the same number per problem. `ks` adds pass@k to the powers of two.

    `votes`: with majority votes. `groups` are those of each problem, by index: `by` then splits pass@1 by them.

    `pass@1`, `truncated`, `no_answer` and `ungradable` are shares of 1; ungradable samples count as wrong.
    """
    problems = by_problem(rows)
    n = len(problems[0])
    correct = [[row["correct"] is True for row in samples] for samples in problems]
    rates = mean_with_interval(pass_at_1(correct))
    tokens = [row["n_tokens"] for row in rows if row["n_tokens"] is not None]
    powers = [2**i for i in range(1, 20) if 2**i <= n]
    return {
        "n_problems": len(problems),
        "num_samples": n,
        "pass@1": rates.value,
        "ci95": list(rates.ci95),
        "pass@k": {
            str(k): _figure(mean_with_interval([pass_at_k(n, sum(samples), k) for samples in correct]))
            for k in sorted({*powers, n, *ks} - {1})
        },
        "cons@k": {str(n): _figure(mean_with_interval([_vote(samples) for samples in problems]))}
        if n > 1 and votes
        else {},
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
        "p95_tokens": percentile(tokens, 95),
        "truncated": share([row["finish_reason"] == "length" for row in rows]),
        "no_answer": share([row["extracted"] is None and row["correct"] is not None for row in rows]),
        "ungradable": share([row["correct"] is None for row in rows]),
        **_by_group(problems, groups or {}),
    }


def _by_group(problems: Sequence[Sequence[Row]], groups: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    """`{"by": {"difficulty": {"easy": {"n_problems", "pass@1", "ci95"}}}}`, or nothing without groups."""
    rates: dict[str, dict[str, list[float]]] = {}
    for samples in problems:
        rate = share([row["correct"] is True for row in samples])
        for name, value in groups.get(samples[0]["index"], {}).items():
            rates.setdefault(name, {}).setdefault(value, []).append(rate)
    figures = {
        name: {value: _group_figure(rates[name][value]) for value in sorted(rates[name])} for name in sorted(rates)
    }
    return {"by": figures} if figures else {}


def _group_figure(rates: Sequence[float]) -> dict[str, Any]:
    estimate = mean_with_interval(rates)
    return {"n_problems": len(rates), "pass@1": estimate.value, "ci95": list(estimate.ci95)}


def by_problem(rows: Sequence[Row]) -> list[list[Row]]:
    """Samples of each problem, in order."""
    problems: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["index"], row["sample"])):
        problems.setdefault(row["index"], []).append(row)
    return list(problems.values())


def reported_figures(model: str, task: str) -> list[dict[str, Any]]:
    """Published figures, shares of 1 like ours."""
    return [
        {"metric": f.metric, "value": round(f.percent / 100, 4), "by": f.by, "source": f.source}
        for f in reported_for(model, task)
    ]


def results_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One line per task: pass@1 with its interval, and the score reported for that model. Columns without values are
    left out."""
    lines = [_cells(result) for result in results]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in lines[0]:
        if any(line[name] for line in lines):
            table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(line[str(column.header)] or "-" for column in table.columns))
    return table


def answer_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence per task about its answers."""
    notes = []
    for result in results:
        parts = [f"{result['truncated']:.1%} cut off", f"{result['no_answer']:.1%} without an answer"]
        if result["ungradable"]:
            parts.append(f"{result['ungradable']:.1%} could not be graded and count as wrong")
        if result["mean_tokens"] is not None:
            parts.insert(0, f"{result['mean_tokens']:,.0f} tokens on average, 95% within {result['p95_tokens']:,.0f}")
        notes.append(f"{result['task']}: {'; '.join(parts)}.")
        for name, figures in result.get("by", {}).items():
            listed = ", ".join(
                f"{value} {in_percent(f['pass@1'], f['ci95'], unit='%')} of {f['n_problems']:,}"
                for value, f in figures.items()
            )
            notes.append(f"{result['task']}: pass@1 by {name}: {listed}.")
    return notes


def _cells(result: Mapping[str, Any]) -> dict[str, str]:
    n = str(result["num_samples"])
    pass_at, vote = result["pass@k"].get(n), result["cons@k"].get(n)
    return {
        "task": result["task"],
        "samples": f"{result['n_problems']:,} × {n}",
        "pass@1 [95%]": in_percent(result["pass@1"], result["ci95"], unit="%"),
        "reported": "\n".join(f"{f['by']} {f['value']:.1%}" for f in result["reported"] if f["metric"] == "pass@1"),
        "pass@n": f"{pass_at['value']:.1%}" if pass_at else "",
        "cons@n": f"{vote['value']:.1%}" if vote else "",
    }


def _vote(samples: Sequence[Row]) -> float:
    answers, correct = [row["extracted"] for row in samples], [row["correct"] is True for row in samples]
    right, voters = sum(correct), sum(answer is not None for answer in answers)
    if right == 0 or 2 * right > voters:  # decided without comparing the wrong answers with each other
        return float(right > 0)
    return vote_credit(*consensus(answers, correct, same_answer))


def same_answer(one: str, other: str) -> bool:
    """Whether two final answers are equal, for the grader."""
    return grade_many(completions=[f"\\boxed{{{one}}}"], golds=[other])[0].correct is True


def _figure(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci95": list(estimate.ci95)}
