"""The model hub: whether it or its mirror answers, offline mode, and the login, which is optional."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from huggingface_hub import constants, get_token

from open_r1.launch.doctor.finding import Finding

DEFAULT_ENDPOINT = "https://huggingface.co"


def check_hub(seconds: float = 3.0) -> Iterator[Finding]:
    """Makes no request in offline mode."""
    endpoint = constants.ENDPOINT
    mirror = f" (HF_ENDPOINT, instead of {DEFAULT_ENDPOINT})" if endpoint != DEFAULT_ENDPOINT else ""
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "ok", "HF_HUB_OFFLINE is set: only the cache and local folders are used")
    else:
        began = time.monotonic()
        reason = unreachable(endpoint, seconds)
        if reason is None:
            yield Finding("hub", "ok", f"{endpoint}{mirror} answers after {time.monotonic() - began:.1f} s")
        else:
            remedy = "Set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1 and use local folders: docs/offline.md."
            yield Finding("hub", "note", f"{endpoint}{mirror} does not answer: {reason}", remedy)
    if get_token():
        yield Finding("login", "ok", "logged in (a token is set)")
    else:
        yield Finding("login", "ok", "not logged in; only private models and push_to_hub need it")


def unreachable(endpoint: str, seconds: float) -> str | None:
    """Why a server does not answer; None if it answers anything."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=seconds).close()
    except urllib.error.HTTPError:
        return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None
