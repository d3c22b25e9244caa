"""Commands that train or measure a network: demo, train, compare, study, check, ablate."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradscope.cli.terminal import Commands, ProgressLine, command, table
from gradscope.schema import GradScopeError

if TYPE_CHECKING:
    from gradscope.experiments import Spread


def add_demo(commands: Commands) -> None:
    """`gradscope demo`."""
    demo = command(
        commands,
        "demo",
        run_demo,
        "train plain, residual and dense nets on embedded images, print what they show, open the "
        "dashboard",
        "gradscope demo --no-dashboard",
    )
    demo.add_argument("--runs", default="runs/demo", metavar="DIR", help="where the runs are kept")
    demo.add_argument("--retrain", action="store_true", help="train again, replacing the runs")
    demo.add_argument("--no-dashboard", action="store_true", help="stop after the findings")
    demo.add_argument("--no-browser", action="store_true", help="serve, but open no browser")
    demo.add_argument("--port", type=int, default=8050, help="port of the dashboard (8050)")


def run_demo(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import demo

    paths = demo(arguments.runs, retrain=arguments.retrain, on_progress=ProgressLine())
    print_findings(paths)
    if not arguments.no_dashboard:
        from gradscope_dashboard.app import serve

        serve(arguments.runs, port=arguments.port, open_browser=not arguments.no_browser)


def add_train(commands: Commands) -> None:
    """`gradscope train`."""
    train = command(
        commands,
        "train",
        run_train,
        "train one network and record it",
        "gradscope train resnet20 --data fashion-mnist --data-root data --epochs 2 --device auto",
    )
    train.add_argument(
        "model", help="plain20, resnet20, densenet22, ... or a name of torchvision's"
    )
    train.add_argument("--run", metavar="NAME", help="name of the run (default: model, seed, time)")
    train.add_argument("--seed", type=int, default=0, help="seed of weights and data order (0)")
    training_options(train)


def run_train(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import train

    path = train(
        arguments.model,
        run=arguments.run,
        seed=arguments.seed,
        root=arguments.runs,
        on_progress=ProgressLine(),
        **settings_of(arguments),
    )
    print_findings([path])


def add_compare(commands: Commands) -> None:
    """`gradscope compare`."""
    compare = command(
        commands,
        "compare",
        run_compare,
        "train several networks on the same batches and compare them",
        "gradscope compare plain20 resnet20 densenet22 --seeds 3",
    )
    compare.add_argument("models", nargs="+", metavar="MODEL", help="names of networks")
    compare.add_argument("--seeds", type=int, default=1, help="seeds 0 .. N-1 for each network (1)")
    compare.add_argument("--retrain", action="store_true", help="replace runs of the same names")
    training_options(compare)


def run_compare(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import compare

    paths = compare(
        arguments.models,
        seeds=arguments.seeds,
        root=arguments.runs,
        retrain=arguments.retrain,
        on_progress=ProgressLine(),
        **settings_of(arguments),
    )
    print_findings(paths)
    print(f"\nSee them side by side: gradscope dashboard {arguments.runs}")


def training_options(parser: argparse.ArgumentParser) -> None:
    """The options that every training has."""
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    parser.add_argument("--data", default="fashion-mnist-small", help="data set (embedded subset)")
    parser.add_argument("--data-root", metavar="DIR", help="where the data set's files are")
    parser.add_argument(
        "--download", action="store_true", help="fetch the data set if it is absent"
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="bring images to N x N pixels")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="peak learning rate (0.1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--every",
        default="auto",
        help='sample each N-th step in full, or "auto" (2 %% of the time)',
    )
    parser.add_argument(
        "--ablate-every",
        type=int,
        metavar="N",
        help="drop each block alone after every N-th step, on 250 test images",
    )
    parser.add_argument("--no-batch-norm", action="store_true", help="without batch normalisation")
    parser.add_argument("--shortcut", choices=("A", "B"), default="A", help="of a residual net (A)")


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of a training from its options."""
    every = arguments.every
    return {
        "data": arguments.data,
        "data_root": arguments.data_root,
        "download": arguments.download,
        "image_size": arguments.image_size,
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "lr": arguments.lr,
        "device": arguments.device,
        "every": int(every) if every.isdigit() else every,
        "ablate_every": arguments.ablate_every,
        **({"batch_norm": False} if arguments.no_batch_norm else {}),
        **({"shortcut": arguments.shortcut} if arguments.shortcut != "A" else {}),
    }


def print_findings(paths: Sequence[Path]) -> None:
    """A table of what the recorded runs show."""
    from gradscope.diagnosis import diagnose, verdict
    from gradscope.store import open_run

    rows, details = [], []
    for path in paths:
        run = open_run(path)
        findings = run.status.findings
        if findings is None:
            findings = diagnose(run)
        scalars = run.read("scalars")
        final = scalars["value"][scalars["name"] == "val_accuracy"]
        accuracy = f"{100 * final[-1]:.1f} %" if len(final) else "-"
        rows.append((run.name, str(run.status.steps_seen), accuracy, verdict(findings)))
        details += [(run.name, f.severity, f.sentence, f.advice) for f in findings]
    print(table(("run", "steps", "test accuracy", "verdict"), rows))
    for name, severity, sentence, advice in details:
        print(f"\n{name}: {severity}\n  {sentence}\n  {advice}")


def add_study(commands: Commands) -> None:
    """`gradscope study`."""
    study = command(
        commands,
        "study",
        run_study,
        "train variants that differ in one thing, over several seeds, and test published claims",
        "gradscope study heads --seeds 3",
    )
    study.add_argument("name", help="heads, skips, normalisation or stochastic-depth")
    study.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 for each variant (3)")
    study.add_argument("--runs", default="runs/studies", metavar="DIR", help="where the runs go")
    study.add_argument("--model", help="the network of heads: inception_small, googlenet, ...")
    study.add_argument("--data", help="data set (embedded subset)")
    study.add_argument("--data-root", metavar="DIR", help="where the data set's files are")
    study.add_argument("--image-size", type=int, metavar="N", help="bring images to N x N pixels")
    study.add_argument("--epochs", type=int, help="epochs of each training (1)")
    study.add_argument("--batch-size", type=int, help="images a step (64)")
    study.add_argument("--lr", type=float, help="peak learning rate (the study's own)")
    study.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    study.add_argument("--retrain", action="store_true", help="replace runs of the same names")


def run_study(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import OUTCOMES, study

    given = ("data", "data_root", "image_size", "epochs", "batch_size", "lr")
    result = study(
        arguments.name,
        seeds=arguments.seeds,
        root=arguments.runs,
        model=arguments.model,
        retrain=arguments.retrain,
        on_progress=ProgressLine(),
        device=arguments.device,
        **{name: value for name in given if (value := getattr(arguments, name)) is not None},
    )
    rows = []
    for measure in result.measures:
        label, unit = OUTCOMES[measure]
        spreads = result.spreads(measure).values()
        rows.append((f"{label}{f', {unit}' if unit else ''}", *(_spread(s) for s in spreads)))
    print(f"{result.question}\n")
    print(table(("mean and 95 % interval over seeds", *result.values), rows))
    for judged in result.judged:
        claim, found = judged.claim, judged.found
        against = f" - {claim.reference}" if claim.reference else ""
        measured = f"{OUTCOMES[claim.measure][0]}, {claim.variant}{against}: {_spread(found)}"
        print(f"\n{judged.verdict}, at this scale: {claim.text} ({claim.source})\n  {measured}")
    print(f"\nSee the runs side by side: gradscope dashboard {arguments.runs}/{arguments.name}")


def _spread(found: Spread) -> str:
    if found.mean != found.mean:
        return "-"
    digits = 3 if abs(found.mean) < 10 else 1
    half = (found.high - found.low) / 2
    told = f"{found.mean:.{digits}f}"
    return f"{told} ± {half:.{digits}f}" if half == half else told


def add_check(commands: Commands) -> None:
    """`gradscope check`."""
    check = command(
        commands,
        "check",
        run_check,
        "tell how a network stands before training: a few passes, no update",
        "gradscope check resnet50    or    gradscope check model.py:build_model",
    )
    check.add_argument("model", help="a network's name, or PATH.py:function that builds a module")
    check.add_argument("--show", action="store_true", help="open the report in a browser")


def run_check(arguments: argparse.Namespace) -> None:
    from gradscope.preflight import check, subject

    report = check(*subject(arguments.model))
    print(report)
    if arguments.show:
        report.show()


def add_ablate(commands: Commands) -> None:
    """`gradscope ablate`."""
    ablate = command(
        commands,
        "ablate",
        run_ablate,
        "drop a trained run's blocks one by one and store what each is worth",
        "gradscope ablate runs/demo/resnet20 --drop blocks",
    )
    ablate.add_argument("run", help="a run made by train, compare or demo")
    ablate.add_argument("--runs", default="runs", metavar="DIR", help="folder of runs (runs)")
    ablate.add_argument(
        "--drop",
        default="blocks",
        help="what to drop, joined by commas: blocks, stages, random, reorder, residual, dense, "
        "inception, branches, plain (blocks)",
    )
    ablate.add_argument(
        "--k", metavar="N,N", help="for random and reorder: units dropped, or swaps (1, 2, ... all)"
    )
    ablate.add_argument("--limit", type=int, metavar="N", help="use N test images (all)")
    ablate.add_argument("--draws", type=int, default=20, help="random draws for each k (20)")
    ablate.add_argument("--data-root", metavar="DIR", help="where the data set's files are")
    ablate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def run_ablate(arguments: argparse.Namespace) -> None:
    from gradscope.experiments import ablate_run
    from gradscope.store import find_run

    path = find_run(arguments.run, arguments.runs)
    found = ablate_run(
        path,
        drop=arguments.drop.split(","),
        data_root=arguments.data_root,
        limit=arguments.limit,
        device=arguments.device,
        draws=arguments.draws,
        k=_counts(arguments.k),
        progress=True,
    )
    rows = [
        (
            r.unit,
            r.metric,
            f"{r.value:.4f}",
            f"{r.delta:+.4f}",
            f"[{r.ci_low:+.4f}, {r.ci_high:+.4f}]",
        )
        for r in found.rows
        if r.lesion in ("drop", "drop-stage")
    ]
    if rows:
        print(table(("dropped", "metric", "value", "difference", "95 % interval"), rows))
    print(f"{found}\nStored in {path}.")


def _counts(words: str | None) -> list[int] | None:
    if words is None:
        return None
    try:
        return [int(word) for word in words.split(",")]
    except ValueError:
        raise GradScopeError(f"--k takes whole numbers joined by commas, not {words!r}.") from None


COMMANDS = (add_demo, add_train, add_compare, add_study, add_check, add_ablate)
