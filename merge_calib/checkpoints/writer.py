"""A merged checkpoint on disk: whole, sharded, with all that a model's folder holds besides weights."""

import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from merge_calib.checkpoints.licences import is_licence
from merge_calib.checkpoints.pair import ModelPair
from merge_calib.checkpoints.parent import Parent
from merge_calib.checkpoints.shards import SHARD_BYTES, Pieces, Stored, index_of, main_dtype, plan_shards, write_shards
from merge_calib.errors import OutputError
from merge_calib.files import ended_gently, written_whole
from merge_calib.progress import Advance, ignored

_COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.vocab", "*.bpe", "*.spm", "*.py")
_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "*.jinja"),
    *("vocab*", "merges.txt", "*.model", "*.tiktoken", "*.spm", "*.bpe"),
)
_NOT_COPIED = (
    *("config.json", "adapter_config.json", "quantize_config.json", "merge_calib.json", "*.index.json"),
    *("trainer_state.json", "training_args.json", "*_results.json", "requirements*"),
)
_TEMPLATES = "additional_chat_templates"


def write_checkpoint(
    folder: Path,
    pair: ModelPair,
    tensors: Mapping[str, Stored],
    pieces: Pieces,
    texts: Callable[[], Mapping[str, str]],
    *,
    copies: Mapping[str, Path] | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Advance = ignored,
    workers: int | None = None,
) -> None:
    """Write a checkpoint into `folder`, replacing it only when all is on disk.

    tensors: what each tensor will be, by name, in the order in which files are filled
    pieces, progress, workers: see `write_shards`; texts: gives further text files by name when the weights are written
    copies: further files by the name that they get. Config and tokenizer, chat template and generation config are
    those of `pair` and its host. Raises OutputError where the disk is too small or writing fails, or the process is
    told to end; `folder` is then as it was.
    """
    shards = plan_shards(tensors, shard_bytes)
    _require_space(folder.parent, sum(shard.size for shard in shards))
    with ended_gently(), written_whole(folder) as partial:
        partial.mkdir(parents=True)
        _copy_companions(pair.host, partial)
        for name, path in (copies or {}).items():
            shutil.copyfile(path, partial / name)
        write_shards(partial, shards, pieces, progress, workers)
        if len(shards) > 1:
            _write_text(partial / "model.safetensors.index.json", index_of(shards, tensors))
        for name, text in texts().items():
            _write_text(partial / name, text)
        # Last of all, so that what a killed process leaves is no model to anybody.
        _write_text(partial / "config.json", _json(_config(pair.config, tensors)))


def has_tokenizer(host: Parent) -> bool:
    """Whether a merge with this host has a tokenizer."""
    names = {*_companions(host.folder), *_companions(host.shape.folder)}
    return any(name.startswith(("tokenizer", "vocab", "spiece")) for name in names)


def _require_space(place: Path, needed: int) -> None:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        sizes = f"the checkpoint needs {needed / 1e6:,.1f} MB and {place} has {free / 1e6:,.1f} MB free"
        raise OutputError(f"{sizes}; it was not written, all else is kept")


def _copy_companions(host: Parent, target: Path) -> None:
    """Copy what is neither weights nor config: from the host's folder, and what that lacks from its model's.

    A tokenizer is not mixed from both: where the host's folder, which may be an adapter's, has one, all of it is that.
    """
    files = _companions(host.folder)
    has_tokenizer = any(name.startswith(("tokenizer", "vocab")) for name in files)
    for name, path in _companions(host.shape.folder).items():
        if name not in files and not (has_tokenizer and _matches(name, _TOKENIZER)):
            files[name] = path
    for name, path in sorted(files.items()):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / name)


def _companions(folder: Path) -> dict[str, Path]:
    paths = [*folder.glob("[!.]*"), *(folder / _TEMPLATES).glob("*.jinja")]
    named = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {
        name: path
        for name, path in named.items()
        if _matches(name, _COMPANIONS) and not _matches(name, _NOT_COPIED) and not is_licence(name)
    }


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _config(config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """The config with the dtype that most weights have, also where a multimodal model repeats it for its text."""
    dtype = str(main_dtype(tensors)).removeprefix("torch.")
    written = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype", "_name_or_path")}
    text = config.get("text_config")
    if isinstance(text, dict) and text.keys() & {"dtype", "torch_dtype"}:
        kept = {key: value for key, value in text.items() if key != "torch_dtype"}
        written["text_config"] = kept | {"dtype": dtype}
    return written | {"dtype": dtype}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
