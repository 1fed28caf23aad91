"""Verbs that make what an audit reads."""

from pathlib import Path
from typing import Annotated

import typer

from palpate import console


def prompts(
    folder: Annotated[Path, typer.Argument(help="Folder in the layout of segmentation_folder.")],
    name: Annotated[str, typer.Option(help="The class in words, such as polyp.")],
    description: Annotated[str, typer.Option(help="A general description, as p7.")],
    output: Annotated[Path, typer.Option(help="Prompt file to write, <folder name>.json.")],
    paraphrase: Annotated[
        list[str] | None, typer.Option(help="Another way to say the class; may be repeated.")
    ] = None,
) -> None:
    """Write the nine kinds of prompt of every image, worked out from its mask."""
    from palpate.datasets._wordings import prompt_file
    from palpate.datasets.segmentation_folder import SegmentationFolder
    from palpate.record import write_json

    samples = SegmentationFolder(path=folder, split="", exclusive=False).load()
    content = prompt_file(samples, name=name, description=description, paraphrases=paraphrase or ())
    write_json(output, content)
    console.say(f"{output}: {len(content['texts'])} images")
