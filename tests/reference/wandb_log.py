"""A reader of W&B's offline files: LevelDB's log format behind seven bytes of header."""

import json
import struct
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024
HEADER = 7  # checksum, length, type; the file's own header is as long


def read_records(path: Path):
    """Every record of a .wandb file."""
    data, place, parts = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # too little for a header: the rest of the block is padding
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + HEADER])
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


MEDIA = {"_type", "path", "caption", "format", "width", "height", "sha256", "size"}
"""Fields of pictures and tables that the terminal viewer makes no curves of."""


def curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """What `wandb leet` draws: chart -> (x, y), x by the axis that the chart's own name was defined with."""
    axes, drawn = {}, {}
    for record in read_records(path):
        if record.HasField("metric") and record.metric.name:
            axes[record.metric.name] = record.metric.step_metric
        row = {}
        for item in record.history.item if record.HasField("history") else ():
            if not (len(item.nested_key) > 1 and item.nested_key[-1] in MEDIA):
                try:
                    row[".".join(item.nested_key) or item.key] = float(item.value_json)
                except ValueError:
                    continue
        for name, value in row.items():
            if not name.startswith("_"):
                drawn.setdefault(name, []).append((row[axes[name]], value))
    return drawn


def media(path: Path) -> dict[str, list[str]]:
    """Name -> kinds of what was logged under it: pictures, tables, interactive figures."""
    found = {}
    for record in read_records(path):
        for item in record.history.item if record.HasField("history") else ():
            if len(item.nested_key) > 1 and item.nested_key[-1] == "_type":
                found.setdefault("/".join(item.nested_key[:-1]), []).append(json.loads(item.value_json))
    return found


def summary(path: Path) -> dict:
    """The last of every key, without those of W&B's own and of media."""
    found = {}
    for record in read_records(path):
        for item in record.summary.update if record.HasField("summary") else ():
            name = "/".join(item.nested_key) or item.key
            if len(item.nested_key) <= 1 and not name.startswith("_"):
                found[name] = json.loads(item.value_json)
    return found
