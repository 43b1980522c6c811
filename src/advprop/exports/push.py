"""Publishes an export on the Hugging Face Hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from advprop.files.parsing import first_line


def check_push(repository: str) -> None:
    """Raise ValueError if `repository` is no valid name or there is no token for the Hub."""
    validate_repo_id(repository)
    if get_token() is None:
        raise ValueError(
            f"{repository}: no token for the Hugging Face Hub; log in with hf auth login, or set "
            "HF_TOKEN"
        )


def push_export(folder: Path, repository: str) -> str:
    """Upload the export in `folder` to the model repository ORG/NAME, and return its address.

    A repository that does not exist is created with the Hub's usual visibility; an existing one
    keeps its visibility and history. Raises ValueError, with the command that uploads `folder`
    later, if the Hub refuses or cannot be reached.
    """
    api = HfApi()
    try:
        place = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=place.repo_id, folder_path=folder, commit_message="Export of advprop"
        )
    except Exception as error:  # errors of the connection depend on the Hub's client library
        again = shlex.join(["hf", "upload", repository, str(folder)])
        raise ValueError(
            f"{repository}: {_reason(error)}; the export lies in {folder}, upload it with {again}"
        ) from error
    return str(place)


def _reason(error: Exception) -> str:
    """Return what went wrong and, if it is known, the remedy."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, unset it"
    if isinstance(error, ValueError):  # about the card's header, in several lines
        return " ".join(str(error).split())
    if not isinstance(error, HfHubHTTPError):
        return f"the Hub cannot be reached ({first_line(error)}), check the connection"
    return _REFUSALS.get(error.response.status_code, f"the Hub refused ({first_line(error)})")


_REFUSALS = {
    401: "the Hub does not accept the token (401), log in again with hf auth login",
    403: "the token may not write there (403), use a name of yours or of an organisation that you "
    "belong to, and a token with write permission",
}
