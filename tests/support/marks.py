"""Marks for tests."""

import pytest

measures_times = pytest.mark.flaky(reruns=2)
"""What the test measures is spoiled where the machine stands still for a moment: try again."""
