"""What all tests share: no THALWEG_* variable of the developer's own, and a profile for hypothesis."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.brokers import apache, brokers, kafka  # noqa: F401

KEPT = ("THALWEG_CACHE", "THALWEG_DEBUG", "THALWEG_TEST_BROKERS", "THALWEG_TEST_KAFKA")
"""Variables that configure the machine, not Thalweg."""

for name in [name for name in os.environ if name.startswith("THALWEG_") and name not in KEPT]:
    del os.environ[name]

# No deadline: the first example of a property compiles kernels. Derandomised: a red test stays red until it is mended;
# `HYPOTHESIS_PROFILE=explore pytest` looks for new examples.
settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty columns, no colour: what a test reads does not depend on the terminal that runs it."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
