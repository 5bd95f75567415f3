"""Rows that were encoded before, kept on disk by the hash of all that they depend on."""

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from merge_calib.errors import OutputError
from merge_calib.files import written_whole
from merge_calib.scoring.rows import EncodedTask, Row


def load_rows(key: str) -> EncodedTask | None:
    """What `keep_rows` kept under `key`; None where there is nothing, or nothing that can be read."""
    try:
        with _file(key).open("rb") as file, np.load(file, allow_pickle=False) as fields:
            return _unpacked({name: fields[name] for name in fields.files})
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None


def keep_rows(key: str, encoded: EncodedTask) -> None:
    """Keep `encoded`; a disk that takes nothing costs another encoding, nothing more."""
    with suppress(OutputError), written_whole(_file(key)) as partial, partial.open("wb") as file:
        np.savez(file, **_packed(encoded))


def _packed(encoded: EncodedTask) -> dict[str, Any]:
    rows = encoded.rows
    places = [(r.first, len(r.tokens), *r.candidates.shape, r.question, r.choice) for r in rows]
    return {
        "tokens": np.concatenate([r.tokens for r in rows]).astype(np.int32),
        "candidates": np.concatenate([r.candidates.reshape(-1) for r in rows]).astype(np.int32),
        "places": np.array(places, dtype=np.int32),
        "counts": np.array([encoded.encoded_apart, encoded.truncated]),
        "letters": np.array(encoded.letters or ""),
    }


def _unpacked(fields: dict[str, Any]) -> EncodedTask:
    places = fields["places"].astype(np.int64)
    tokens = np.split(fields["tokens"].astype(np.int64), np.cumsum(places[:, 1])[:-1])
    candidates = np.split(fields["candidates"].astype(np.int64), np.cumsum(places[:, 2] * places[:, 3])[:-1])
    rows = tuple(
        Row(ids, int(first), asked.reshape(count, width), int(question), int(choice))
        for ids, asked, (first, _, count, width, question, choice) in zip(tokens, candidates, places, strict=True)
    )
    apart, truncated = fields["counts"].tolist()
    return EncodedTask(rows, apart, truncated, str(fields["letters"]) or None)


def _file(key: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "merge-calib" / "rows" / f"{key}.npz"
