"""Nothing that is passed on with the package is under GPL or AGPL alone, and every dependency
states its licence."""

from __future__ import annotations

import pytest

from reliability.licences import dependencies, gpl_only


def test_every_installed_dependency_states_a_licence_that_fits():
    found = dependencies()
    assert {"torch", "numpy", "pydicom", "nibabel"} <= {
        d.name for d in found if d.needed == "needs"
    }
    assert [f"{d.name}: {d.licence or 'does not say'}" for d in found if not d.fits] == []
    assert all(d.installed for d in found if d.needed == "needs")


@pytest.mark.parametrize(
    "licence, wrong",
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("AGPL-3.0-or-later", True),
        ("GPL-2.0-only OR MIT", False),
        ("LGPL-3.0-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("BSD License; Apache Software License", False),
        ("MPL-2.0", False),
    ],
)
def test_what_counts_as_gpl_only(licence, wrong):
    assert gpl_only(licence) == wrong
