"""The verbs about recipes and what they need: new, run, evaluate, doctor."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import lmwright
from lmwright.cli import options
from lmwright.cli.output import print_json
from lmwright.core.errors import RequestError, suggestion


def new(
    name: Annotated[str, typer.Argument(help="The recipe's name; NAME.toml is written.")],
    template: Annotated[str, typer.Option(help="Which recipe to start from.")] = "support",
    as_json: options.AsJson = False,
) -> None:
    """Write a recipe to start from, ready to run."""
    from lmwright.recipe.read import parse

    folder = Path(lmwright.__file__).parent / "recipes"
    known = [path.stem for path in folder.glob("*.toml")]
    if template not in known:
        raise RequestError(f"--template {template}: no such recipe{suggestion(template, known)}")
    text = (folder / f"{template}.toml").read_text(encoding="utf-8")
    text = text.replace(f'name = "{template}"', f"name = {json.dumps(name)}", 1)
    parse(text, where=name)
    path = Path(f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RequestError(f"{path} exists already; choose another name") from None
    if as_json:
        print_json({"recipe": str(path)})
    else:
        print(f"wrote {path}; next: lmwright run {path}")


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.toml).")],
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run just this step.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="STEP", help="Redo a step and all that follows from it."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As in finetune.tuned.rank=8; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: runs/NAME).")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Do the steps of a recipe that are not done yet."""
    from lmwright.cli import listing
    from lmwright.recipe import run as pipeline
    from lmwright.recipe.read import read

    plan = pipeline.plan(read(recipe, overrides=changes or ()), out=out, only=only, start=start)
    if dry_run:
        if as_json:
            print_json(plan.to_json())
        else:
            print(listing.plan(plan))
        return
    print(listing.plan(plan), file=sys.stderr)
    result = pipeline.run(plan.recipe, out=out, only=only, start=start)
    reports = [result.folder / name / "report.html" for name in plan.recipe.report]
    reports = [path for path in reports if path.exists()]
    if as_json:
        data = {"folder": str(result.folder), "ran": result.ran, "skipped": result.skipped}
        gate = result.gate.to_json() if result.gate else None
        paths = [str(path) for path in reports]
        print_json({**data, "seconds": result.seconds, "gate": gate, "reports": paths})
    else:
        for each in plan.steps:
            if each.step.stage == "evaluate" and (evaluation := each.artifact.result):
                print(listing.scores(evaluation, is_terminal=sys.stdout.isatty()))
        if result.gate is not None:
            print(f"\n{listing.gate(result.gate)}")
        for path in reports:
            print(f"\nreport: {path}")
    raise typer.Exit(result.exit_code)


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=options.MODEL_HELP)],
    suite: Annotated[str, typer.Option(help="quick (a minute a model) or full.")] = "quick",
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", help="Only this task; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Held-out questions: a data step's folder, or a source.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=IN,OUT",
            help="What a hosted model costs for a million tokens in and out; may be repeated.",
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep what hosted models answer, and use it.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Keep rows and result.json here.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure models side by side, with intervals and verdicts."""
    import tempfile

    from lmwright.cli import listing
    from lmwright.recipe import run as pipeline

    hosted = {"prices": _prices(price), "cache": cache} if price or not cache else None
    recipe = pipeline.evaluation_recipe(models, suite=suite, tasks=tasks, data=data, hosted=hosted)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        pipeline.run(recipe, out=folder)
        result = json.loads((folder / "scores" / "result.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(result)
    else:
        print(listing.scores(result, is_terminal=sys.stdout.isatty()))


def _prices(given: list[str] | None) -> dict[str, list[str]]:
    """Read MODEL=IN,OUT; whether the numbers are numbers is checked with the rest."""
    prices = {}
    for text in given or ():
        # A URL may hold an = of its own.
        model, equals, numbers = text.rpartition("=")
        if not equals or numbers.count(",") != 1:
            raise RequestError(f"--price {text}: expected MODEL=IN,OUT, as in openai:gpt-4o=2.5,10")
        prices[model] = numbers.split(",")
    return prices


def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="Look at this recipe's needs, too.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say whether this machine is ready, and what to do if not."""
    from lmwright.cli.doctor import examine

    checks = []
    for check in examine(recipe):
        checks.append(check)
        if not as_json:
            remedy = f"\n{'':17}{check.remedy}" if check.remedy else ""
            print(f"{check.status:<5} {check.name:<10} {check.found}{remedy}", flush=True)
    if as_json:
        print_json([asdict(check) for check in checks])
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)
