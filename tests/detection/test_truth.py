"""Beside a known reference: found and missed by their own rule, and a twin that still shows the
lesion is named so."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.anomalies.phantoms import lesion
from pseudohealthy.detection.truth import (
    STILL,
    Known,
    beside,
    percent,
    removed,
    still_shows,
    twin_text,
)

ROWS, COLUMNS = np.mgrid[:64, :64]
TRUTH = (np.hypot(ROWS - 20, COLUMNS - 24) < 6)[None]


def tissue(seed: int = 0) -> np.ndarray:
    """Grey with noise, (1, 64, 64)."""
    return 100 + np.random.default_rng(seed).normal(0, 3, (1, 64, 64))


@pytest.mark.parametrize("left", [0.0, 0.2, 0.5, 1.0, 1.3])
@pytest.mark.parametrize("contrast", [-40, 40])
def test_the_share_of_the_contrast_that_the_twin_removed(left, contrast):
    image, twin = tissue() + contrast * TRUTH, tissue(1) + left * contrast * TRUTH
    share = removed(image, twin, TRUTH)
    assert share == pytest.approx(1 - left, abs=0.05)
    assert still_shows(share) == (left > 0.25)


def test_a_blind_spot_of_the_other_sign_is_a_lesion_in_reverse():
    share = removed(tissue() + 40 * TRUTH, tissue() - 40 * TRUTH, TRUTH)
    assert (
        share == pytest.approx(2, abs=0.1)
        and still_shows(share)
        and "in reverse" in twin_text(share)
    )


def test_tissue_far_away_and_planes_without_a_lesion_do_not_count():
    image, twin = tissue() + 40 * TRUTH, tissue() + 20 * TRUTH
    alone = removed(image, twin, TRUTH)
    far = np.hypot(ROWS - 20, COLUMNS - 24) > 15
    changed = image + 500 * far
    assert removed(changed, twin, TRUTH) == alone
    volume = [np.concatenate([first, tissue(5), first]) for first in (image, twin)]
    assert removed(*volume, np.concatenate([TRUTH, 0 * TRUTH, TRUTH])) == pytest.approx(alone)


def test_what_has_no_answer_is_none_and_said_by_nothing():
    image = tissue()
    assert removed(image, image, np.zeros_like(TRUTH)) is None
    assert removed(image, image, np.ones_like(TRUTH)) is None
    assert removed(np.ones_like(image), image, TRUTH) is None
    assert still_shows(None) is None and twin_text(None) == ""


def test_a_lesion_that_is_taken_out_again_is_rarely_said_to_be_still_there():
    smooth = 0.5 + 0.1 * np.sin(ROWS / 5) * np.cos(COLUMNS / 7)
    inside = np.hypot(ROWS - 32, COLUMNS - 32) < 20
    wrong = 0
    for seed in range(30):
        drawn, mask = lesion(smooth, inside, np.random.default_rng(seed), radius=(4, 8))
        wrong += bool(still_shows(removed(drawn[None], smooth[None], mask[None])))
    assert wrong <= 3


@pytest.mark.parametrize(
    "mask, words",
    [
        (TRUTH, "found, 100 % of it marked"),
        (0 * TRUTH, "missed, nothing of it marked"),
        (TRUTH | (ROWS > 60), "found, 100 % of it marked; 1 region elsewhere"),
        ((ROWS > 60)[None], "missed, nothing of it marked; 1 region elsewhere"),
    ],
    ids=["all", "nothing", "and more", "another"],
)
def test_found_and_missed_in_words(mask, words):
    mask = np.asarray(mask, dtype=bool)
    known = beside(tissue() + 40 * TRUTH, tissue(), mask, TRUTH)
    assert known.text() == words
    assert known.as_dict()["twin_still_shows_it"] is False


def test_one_pixel_is_a_find_and_healthy_tissue_has_only_false_alarms():
    speck = np.zeros_like(TRUTH)
    speck[0, 20, 24] = True
    assert beside(tissue() + 40 * TRUTH, tissue(), speck, TRUTH).text() == "found, 1 % of it marked"
    healthy = beside(tissue(), tissue(), speck, 0 * TRUTH)
    assert healthy.text() == "healthy, 1 region marked all the same" and healthy.marked is None
    assert beside(tissue(), tissue(), 0 * speck, 0 * TRUTH).text() == "healthy, nothing marked"


def test_a_twin_that_still_shows_the_lesion_is_named():
    assert twin_text(0.43) == "the lesion is still there: 43 % of its contrast removed"
    assert twin_text(-0.2, "bleed") == "the bleed is still there: nothing of its contrast removed"
    assert twin_text(0.96) == "96 % of the lesion's contrast removed"


@pytest.mark.parametrize(
    "share", [0.7451, 0.7499, 0.74996, 0.75, 0.7504, 0.754, 1.4951, 1.49996, 1.5, 1.5004, 1.504]
)
def test_the_figure_never_stands_on_the_other_side_of_the_line_than_the_verdict(share):
    inside = 100.0 + 40 * TRUTH
    twin = inside - 40 * share * TRUTH
    said = beside(inside, twin, TRUTH, TRUTH).as_dict()
    text = twin_text(said["removed"])
    assert text == twin_text(removed(inside, twin, TRUTH))
    assert (
        said["twin_still_shows_it"]
        == (" is " in text)
        == (not STILL[0] <= said["removed"] <= STILL[1])
    )
    line = f"{100 * STILL[said['removed'] > 1]:.0f} %"
    assert line in text and ("under" in text, "over" in text) == (
        said["removed"] * 100 < float(line[:-2]),
        said["removed"] * 100 > float(line[:-2]),
    )


def test_a_part_is_never_said_to_be_all_or_nothing():
    assert [percent(share) for share in (0, 0.004, 0.5, 0.996, 1)] == [
        "0 %",
        "under 1 %",
        "50 %",
        "over 99 %",
        "100 %",
    ]
    assert Known(1, 1, 0.9999, 0, None).text() == "found, over 99 % of it marked"
