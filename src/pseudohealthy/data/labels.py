"""What the labels of a case mean: healthy is 0, anomalous is 1."""

from __future__ import annotations

HEALTHY, ANOMALOUS = 0, 1
