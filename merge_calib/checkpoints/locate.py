"""Where a model is: a local folder, or a hub id that is downloaded once."""

import re
from pathlib import Path

from merge_calib.errors import CheckpointError, InputError

_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{40})")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_PAPERS = ["README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"]  # what a merge's card and folder repeat
_OTHERS = ["original/*", "consolidated*"]  # the same weights again, in another layout


def locate(model: str, flag: str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Path:
    """The folder that holds `model`: the folder itself, or the download of hub id `ORG/NAME[@REVISION]`.

    Raises InputError, naming `flag`, for what is neither, and CheckpointError where the hub does not give it.
    """
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_file():
        raise InputError(f"{flag} {model} is a file; give the folder that it is in")
    if not _HUB_ID.fullmatch(model):
        raise InputError(
            f"{flag} {model}: there is no such folder, and it is no hub id (ORG/NAME or ORG/NAME@REVISION)"
        )
    from huggingface_hub import snapshot_download  # late: it takes a while to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    patterns = [*_FILES, *_PAPERS, *(["*.bin"] if allow_pickle else []), *(["*.py"] if trust_remote_code else [])]
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=patterns, ignore_patterns=_OTHERS)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{flag} {model}: there is no such folder, and the hub does not give it: {reason}"
        ) from error


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """The hub id and the commit of a folder among the hub's downloads; None for any other folder."""
    found = _SNAPSHOT.fullmatch("/".join(folder.absolute().parts[-3:]))
    return (found.group(1).replace("--", "/", 1), found.group(2)) if found else None


def hub_id(model: str) -> tuple[str, str | None] | None:
    """The id and the revision in `ORG/NAME[@REVISION]`; None for a folder."""
    if Path(model).exists() or not _HUB_ID.fullmatch(model):
        return None
    name, _, revision = model.partition("@")
    return name, revision or None
