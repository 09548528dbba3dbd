"""Access tokens of Label Studio, renewed before they end.

From a personal access token Label Studio makes access tokens that are good for five minutes. The SDK uses each to
its last moment, by the clock of this machine: a request that is on its way just then is refused, which would cost
an image its prediction, and where the clocks disagree every request is refused for as long as they do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from label_studio_sdk.tokens.client_ext import TokensClientExt

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

EARLY = 60.0
"""Seconds before its end from which a token is not used any more: how long a busy Label Studio may take until it
looks at it. At most half of its life."""


class Tokens(TokensClientExt):
    """The SDK's tokens, renewed in time. Safe between threads."""

    def __init__(self, url: str, token: str, sdk: LabelStudio) -> None:
        """For the server at `url`, with or without a path. Raises ApiError for a personal token that has ended."""
        # Without the slash the SDK would ask for access tokens above the path that Label Studio is served under.
        super().__init__(url.rstrip("/") + "/", token, sdk._client_wrapper)
        self._until = 0.0

    @property
    def api_key(self) -> str:
        """What goes into the Authorization header. Raises ApiError and httpx's errors where it must be renewed."""
        if self._use_legacy_token:
            return self._api_key
        if time.monotonic() >= self._until:
            with self._token_refresh_lock:
                if time.monotonic() >= self._until:
                    self._renew()
        return str(self._access_token)

    def _renew(self) -> None:
        asked = time.monotonic()
        access = self.refresh().access
        claims = self._decode_jwt_payload(access) or {}
        # Where both times are Label Studio's, how long it lives does not depend on this machine's clock.
        made = claims["iat"] if "iat" in claims else time.time()
        life = float(claims.get("exp", made) - made)
        self._set_access_token(access)
        self._until = asked + max(life - EARLY, life / 2)


def renew_in_time(sdk: LabelStudio, url: str, token: str) -> None:
    """Have all calls of an SDK's client use tokens that are renewed in time."""
    sdk._client_wrapper._tokens_client = Tokens(url, token, sdk)
