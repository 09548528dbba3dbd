"""What can go wrong, drawn once. Every message says what happened, to what, and what to do.

    BoxliftError
    ├── ImageError            one photo cannot be used; others are not concerned
    │   ├── ImageFetchError       could not be had (address, status, time-out); may be retried
    │   ├── ImageRefusedError     an address or path that the settings do not allow
    │   └── ImageDecodeError      not a picture that can be read, truncated, or too large
    ├── NetworkError          the classifier cannot be used
    │   ├── UnknownNetworkError   no such entry
    │   ├── WeightsError          weights missing, damaged or of another network
    │   └── UnsupportedLayerError a layer without a backward rule, by name
    ├── ContractError         a job, result or plan that is not of this version's form
    ├── SettingsError         a setting that cannot be used, by its name
    ├── LabellingError        a labelling config that cannot be read
    ├── QueueError            Redis or RQ cannot do what was asked
    │   └── QueueFullError        too many jobs are waiting; `retry_after` says when to come back
    └── StudioError           Label Studio cannot be reached, or refused

Messages may reach clients and logs: they never hold secrets, tokens or tracebacks.
"""

from __future__ import annotations


class BoxliftError(Exception):
    """Base of all errors that Boxlift raises on purpose."""


class ImageError(BoxliftError):
    """One photo cannot be used."""

    retryable: bool = False


class ImageFetchError(ImageError):
    """The photo could not be fetched; another try may help."""

    retryable = True


class ImageRefusedError(ImageError):
    """The photo's address is not allowed by the settings."""


class ImageDecodeError(ImageError):
    """The file is not a readable picture, is cut off, or exceeds the size limits."""


class NetworkError(BoxliftError):
    """The classifier cannot be built or run."""


class UnknownNetworkError(NetworkError):
    """No network of that name."""


class WeightsError(NetworkError):
    """Weights are missing, damaged, or belong to another network."""


class UnsupportedLayerError(NetworkError):
    """A layer has no backward rule; the message names it."""


class ContractError(BoxliftError):
    """A job, result or plan is not of the form this version reads."""


class SettingsError(BoxliftError):
    """A setting has a value that cannot be used; the message names it."""


class LabellingError(BoxliftError):
    """A project's labelling config cannot be read; the message says what to correct."""


class QueueError(BoxliftError):
    """Redis or RQ cannot do what was asked."""


class QueueFullError(QueueError):
    """No more jobs are taken for now."""

    retry_after: int = 60
    """Seconds after which it makes sense to ask again."""


class StudioError(BoxliftError):
    """Label Studio could not be reached, or refused the request."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status that Label Studio answered with; None where it did not answer."""
