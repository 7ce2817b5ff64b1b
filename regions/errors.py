"""The one error of this package."""


class RegionError(Exception):
    """Why a region or slide has no map: a stable `code` (docs/regions.md) and one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
