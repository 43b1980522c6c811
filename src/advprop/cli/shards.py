"""`advprop shards`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import say


def main(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of images, a folder for each class.")
    ],
    out: Annotated[Path, typer.Option(help="The shards' folder, new or empty.")],
    images_per_shard: Annotated[int, typer.Option(help="Images in each tar file.")] = 1000,
) -> None:
    """Write a folder of images as tar files, which are read faster from large or remote disks."""
    from advprop.data.shards.writing import write_shards

    written = write_shards(folder, out, images_per_shard=images_per_shard)
    listed = "; ".join(
        f"{split} {count.num_images} images in {count.num_shards} "
        f"shard{'s' * (count.num_shards != 1)}"
        for split, count in written.items()
    )
    say(f"{out} written: {listed}")
    settings = ["--set", "data.kind=shards", "--set", f"data.train={out}"]
    say(f"next: {shlex.join(['advprop', 'train', 'RECIPE', *settings])}")
