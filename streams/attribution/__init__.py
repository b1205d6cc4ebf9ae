"""Attribution: the stage, its tables and its kernels."""

from .stage import AttributionStage

__all__ = ["AttributionStage"]
