"""What can go wrong with the hub, in the words of this program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qwen3_codegen.errors import HubError
from qwen3_codegen.hub.model_id import ModelId
from qwen3_codegen.spec.catalog import model_names
from qwen3_codegen.spec.near_names import nearest_model

__all__ = ["Unreachable", "hub_failures", "not_cached"]

_LOGIN = "`hf auth login`, or HF_TOKEN, if you have access to it"


class Unreachable(HubError):
    """The hub does not answer, or is not to be asked; what lies in the cache may do."""


@contextmanager
def hub_failures(model: ModelId) -> Iterator[None]:
    """Turns exceptions of huggingface_hub into ours.

    Raises:
        Unreachable: There is no answer.
        HubError: The answer is no.
    """
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(
            f"'{model}' is for people who accepted its terms",
            where=constants.ENDPOINT,
            got=_first_line(error),
            hint=f"accept them on {constants.ENDPOINT}/{model.repository}, then {_LOGIN}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"there is neither a folder nor a model on the hub called '{model.repository}'",
            where=constants.ENDPOINT,
            hint=nearest_model(model.repository, model_names()) or f"a private one needs {_LOGIN}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"'{model.repository}' has no revision '{model.revision}'", where=constants.ENDPOINT
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise Unreachable(
            f"'{model}' is not in the hub's cache, and HF_HUB_OFFLINE is set",
            where=constants.HF_HUB_CACHE,
            hint="unset HF_HUB_OFFLINE, or name a folder",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        kind = Unreachable if status >= 500 else HubError
        raise kind(
            f"the hub refuses '{model}'",
            where=constants.ENDPOINT,
            got=_first_line(error),
            hint="try again later" if status >= 500 else _LOGIN,
        ) from error
    except errors.HTTPError as error:
        raise Unreachable(
            "the hub cannot be reached",
            where=constants.ENDPOINT,
            got=f"{type(error).__name__}: {_first_line(error)}",
            hint="check the network, set HF_ENDPOINT to a mirror, or name a folder or GGUF file "
            "copied from elsewhere; what was downloaded is kept",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise Unreachable(
            f"a file of '{model}' is not in the cache and could not be downloaded",
            where=constants.ENDPOINT,
            got=_first_line(error),
            hint="run the same command again; what was downloaded is kept",
        ) from error
    except OSError as error:
        raise HubError(
            f"'{model}' could not be downloaded",
            where=constants.HF_HUB_CACHE,
            got=_first_line(error),
            hint="run the same command again; what was downloaded is kept",
        ) from error


def not_cached(model: ModelId, cause: Unreachable) -> HubError:
    """Adds to what was said the nearest model there is, which helps those who mistyped."""
    near = _nearest(model)
    if near is None or cause.hint is None:
        return cause
    return HubError(
        cause.message, where=cause.where, got=cause.got, hint=f"{near}; otherwise {cause.hint}"
    )


def _nearest(model: ModelId) -> str | None:
    """A hint for who mistyped; a name that has a spec here was not mistyped."""
    names = model_names()
    return None if model.name.lower() in names else nearest_model(model.repository, names)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
