"""Whether a provider can be asked from here at all."""

from __future__ import annotations

import importlib.util
from urllib.parse import urlsplit

from tulu_pipeline.errors import MissingOnMachine
from tulu_pipeline.settings import ProviderAccess


def check_access(provider: str, access: ProviderAccess) -> None:
    """Nothing, where there is a way to the provider; whether it takes the key, only asking tells.

    Raises:
        MissingOnMachine: the SDK, or the provider's address or key.
    """
    prefix = provider.upper().replace("-", "_")
    if importlib.util.find_spec("openai") is None:
        raise MissingOnMachine(
            "`openai` is not installed", f"provider `{provider}`", "`pip install 'tulu-pipeline[judge]'`"
        )
    if not access.base_url:
        raise MissingOnMachine("no address", f"provider `{provider}`", f"set {prefix}_BASE_URL")
    host = urlsplit(access.base_url).hostname or ""
    if not access.key and host.endswith("openai.com"):
        raise MissingOnMachine("no key", f"provider `{provider}`", f"set {prefix}_API_KEY")
