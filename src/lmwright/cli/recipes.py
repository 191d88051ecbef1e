"""The verbs about recipes and what they need: run, evaluate, doctor."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmwright.cli import completion, listing, options
from lmwright.cli.listing import say
from lmwright.core.errors import InterruptError, RequestError

if TYPE_CHECKING:
    from lmwright.recipe.recipe import Recipe
    from lmwright.recipe.run import RunResult


def run(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe (.toml).", autocompletion=completion.recipes)
    ],
    only: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Run just this step.", autocompletion=completion.steps),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Redo a step and all that follows from it.",
            autocompletion=completion.steps,
        ),
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
    from lmwright.recipe.plan import plan
    from lmwright.recipe.read import read as read_recipe
    from lmwright.recipe.run import run as run_plan

    planned = plan(read_recipe(recipe, overrides=changes or ()), out=out, only=only, start=start)
    if dry_run:
        say(listing.plan(planned), planned.to_json(), as_json=as_json)
        return
    print(listing.plan(planned), file=sys.stderr)
    result = run_plan(planned)
    _print_outcome(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _print_outcome(result: "RunResult", *, as_json: bool) -> None:
    """Print what a run found: scores, decisions, and where its pages are."""
    from lmwright.core.artifact import RESULT
    from lmwright.core.decision import GateResult
    from lmwright.core.results import Scores, from_plain, read_plain
    from lmwright.core.stage import DECISION, EVALUATION, PAGE

    steps = [(each.step.stage.makes, each.artifact) for each in result.plan.steps]
    pages = [made.folder / "report.html" for kind, made in steps if kind == PAGE]
    pages = [str(path) for path in pages if path.exists()]
    decisions = result.decisions
    if as_json:
        data = {
            "folder": str(result.plan.folder),
            "ran": result.ran,
            "skipped": result.skipped,
            "seconds": result.seconds,
            "gate": next(iter(decisions.values()), None),
            "decisions": decisions,
            "reports": pages,
        }
        say("", data, as_json=True)
        return
    for kind, made in steps:
        if kind == EVALUATION and made.result is not None:
            path = made.folder / RESULT
            print(listing.table(read_plain(Scores, path, remedy="run it again").table()))
            for note in made.result.get("notes", ()):
                print("\n" + listing.wrapped(note))
    for each in result.plan.steps:
        if (found := decisions.get(each.step.name)) and each.step.stage.makes == DECISION:
            print(f"\n{listing.decision(from_plain(GateResult, found), each.step.name)}")
    for path in pages:
        print(f"\nreport: {path}")


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help=options.MODEL_HELP, autocompletion=completion.models
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(
            help="quick (a minute a model) or full.",
            autocompletion=completion.among(("quick", "full")),
        ),
    ] = "quick",
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            metavar="TASK",
            help=f"Only this task; may be repeated: {', '.join(options.TASKS)}.",
            autocompletion=completion.among(options.TASKS),
        ),
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
    from lmwright.core.results import Scores

    hosted = {"prices": _prices(price), "cache": cache} if price or not cache else None
    table = {"models": models, "suite": suite, "tasks": tasks, "hosted": hosted}
    result = _evaluated(evaluation_recipe(table, data), out)
    say(Scores.from_json(result), result, as_json=as_json)


def _evaluated(recipe: "Recipe", out: Path | None) -> dict[str, Any]:
    """Run a recipe of `evaluation_recipe`; without `out` nothing of it is kept."""
    import tempfile

    from lmwright.core.artifact import RESULT, read_state
    from lmwright.recipe.plan import plan
    from lmwright.recipe.run import run as run_plan

    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        try:
            run_plan(plan(recipe, out=folder))
        except InterruptError:
            if out is not None:
                raise
            raise InterruptError(
                "interrupted; what was measured is lost (with --out DIR it is kept, and goes on)"
            ) from None
        return read_state(folder / "scores" / RESULT, remedy="measure again")


def evaluation_recipe(table: dict[str, Any], data: str | None) -> "Recipe":
    """Return a recipe that only measures; `data` is a source or the folder of a data step."""
    from lmwright.core.artifact import RESULT, read_state, reading
    from lmwright.data.config import Data
    from lmwright.data.stage import source_hash
    from lmwright.evaluation.config import Evaluate
    from lmwright.recipe.recipe import Recipe

    evaluations = {"scores": Evaluate.read(table, "evaluate")}
    if data is None:
        return Recipe("evaluation", tables={"evaluate": evaluations})
    finished = Path(data) / RESULT
    questions = {"source": data}
    if finished.is_file():
        remedy = f"redo that step (--from {finished.parent.name})"
        result = read_state(finished, remedy=remedy)
        with reading(finished, remedy=remedy):
            is_data = result["step"]["stage"] == "data"
            questions = dict(result["step"].get("config", ()))
            sources = dict(result["step"].get("inputs", ()))
        if not is_data:
            raise RequestError(f"--data {data}: not the folder of a data step")
        # The questions are read from there again: others must not be asked under the same name.
        for source, hash_ in sources.items():
            if source_hash(source) != hash_:
                raise RequestError(
                    f"--data {data}: {source} has changed since that step was done; {remedy}, or "
                    f"measure with --data {source}"
                )
    steps = {"data": Data.read(questions, "data")}
    return Recipe("evaluation", tables={"data": steps, "evaluate": evaluations})


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
    recipe: Annotated[
        Path | None,
        typer.Argument(help="Look at this recipe's needs, too.", autocompletion=completion.recipes),
    ] = None,
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
        say("", [asdict(check) for check in checks], as_json=True)
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)
