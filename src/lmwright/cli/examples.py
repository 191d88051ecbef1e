"""What a verb's --help ends with: commands that work as they stand."""

# Of each verb, two or three commands for a newcomer; the tests parse them.
EXAMPLES = {
    "new": ("lmwright new mine --template own", "lmwright new bank"),
    "run": (
        "lmwright run mine.toml --dry-run",
        "lmwright run mine.toml",
        "lmwright run mine.toml --from tuned --set finetune.tuned.rank=8",
    ),
    "generate": (
        'lmwright generate starter --prompt "What is a mortgage?"',
        "lmwright generate runs/mine/int8 --prompts questions.txt --json",
        'lmwright generate starter --raw --prompt "The bank" --temperature 0.8 --max-tokens 40',
    ),
    "chat": (
        "lmwright chat",
        'lmwright chat runs/mine/int8 --system "Answer in one sentence."',
    ),
    "evaluate": (
        "lmwright evaluate starter",
        "lmwright evaluate starter runs/mine/int8 --data runs/mine/dialogues",
        "lmwright evaluate starter --tasks multiple_choice --tasks gender_gap --suite full",
    ),
    "show": (
        "lmwright show starter",
        "lmwright show runs/mine",
        "lmwright show model.gguf --context 4096 --batch 8",
    ),
    "models": (
        "lmwright models list",
        "lmwright models pull hub:HuggingFaceTB/SmolLM2-360M-Instruct",
        "lmwright models rm hub:HuggingFaceTB/SmolLM2-360M-Instruct",
    ),
    "doctor": ("lmwright doctor", "lmwright doctor mine.toml"),
    "convert": (
        "lmwright convert runs/mine/int8 mine.gguf --to gguf --type q8_0",
        "lmwright convert starter starter-hf --to hf --dtype bf16",
    ),
    "verify": (
        "lmwright verify runs/mine/tuned mine.gguf",
        "lmwright verify starter llama.cpp:model.gguf --prompts questions.txt",
    ),
    "serve": (
        "lmwright serve runs/mine/int8",
        "lmwright serve starter --host 0.0.0.0 --port 8080 --key-file api.key",
    ),
}


def epilog(verb: str) -> str | None:
    """Return the end of a verb's page of help; None if it has no examples."""
    if verb not in EXAMPLES:
        return None
    # \b: the lines stay as they are.
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in EXAMPLES[verb])])
