"""Images that stand in for a data set that isn't there: the size and the columns that a config asks for, nothing to learn.

What is measured on them is whether something runs, and for how long.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def image_file(folder: Path, *, resolution: int, rows: int, group_column: str | None = None) -> Path:
    """A parquet file of colour images with labels, two captions each, and groups of two where a column is named; made once."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    path = folder / f"{resolution}px-{rows}{f'-{group_column}' if group_column else ''}.parquet"
    if path.exists():
        return path
    generator, cells = np.random.default_rng(0), []
    for _ in range(rows):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((resolution, resolution), Image.Resampling.BICUBIC), dtype=np.int16)
        image = np.clip(smooth + generator.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    columns: dict[str, list[Any]] = {
        "image": cells,
        "label": [row % 10 for row in range(rows)],
        "caption": [[f"picture number {row}", f"a picture, the {row}th"] for row in range(rows)],
    }
    if group_column:
        columns[group_column] = [f"group {row // 2}" for row in range(rows)]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(path)
    return path


def at(tree: Mapping[str, Any], *names: str) -> Any:
    """What stands below those keys of a config; None where nothing does."""
    found: Any = tree
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
