"""The arguments and options that several verbs of the command line share."""

from typing import Annotated

import typer

MODEL_HELP = (
    "starter, a folder, a .gguf file, hub:ORG/NAME, a step such as runs/support/int8, or "
    "openai:MODEL@URL."
)
ModelName = Annotated[str, typer.Argument(help=MODEL_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout and nothing else.")]
MaxTokens = Annotated[int, typer.Option(help="Stop after so many tokens.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.")]
TopK = Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0 means all.")]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens that sum up to p.")]
MinP = Annotated[float, typer.Option(help="Drop tokens less likely than p times the likeliest.")]
Penalty = Annotated[float, typer.Option(help="Above 1 discourages repeats.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text.")]
