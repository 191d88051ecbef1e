"""The arguments and options that several verbs of the command line share."""

from typing import Annotated

import typer

from lmwright.cli import completion

MODEL_HELP = (
    "starter, a folder, a .gguf file, hub:ORG/NAME (with :Q4_K_M for a GGUF), a step "
    "such as runs/support/int8, or openai:MODEL@URL."
)
ModelName = Annotated[str, typer.Argument(help=MODEL_HELP, autocompletion=completion.models)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout and nothing else.")]
# The ranges are those of `Sampling`, which is not imported for a page of help.
MaxTokens = Annotated[int, typer.Option(help="Stop after so many tokens; 1 or more.")]
Temperature = Annotated[
    float,
    typer.Option(help="0 to 100; 0 always takes the likeliest token, more draws more freely."),
]
TopK = Annotated[
    int, typer.Option(help="Draw from the k likeliest tokens; 0 or more, where 0 means all.")
]
TopP = Annotated[
    float, typer.Option(help="Draw from the likeliest tokens that sum up to p; above 0, up to 1.")
]
MinP = Annotated[
    float, typer.Option(help="Drop tokens less likely than p times the likeliest; 0 to 1.")
]
Penalty = Annotated[
    float, typer.Option(help="Above 1 discourages repeats, 1 does nothing; above 0, up to 100.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="End before this text; may be repeated; texts that are not empty."),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text; 0 to 2**64 - 1.")]
# Those of lmwright.evaluation.tasks, which is not imported for a page of help.
TASKS = ("qa_accuracy", "multiple_choice", "bits_per_byte", "gender_gap", "refusals", "speed")
