"""Digest schemes: which content a digest covers, by number, so that what was recorded under an older one keeps its name.

| scheme | an action's digest covers | an evaluation's key covers |
|---|---|---|
| 1 | type, version, input digests, every hyperparameter, seed, dtype | model, rows, scorer, prompt format, tokens, dtype |
| 2 | the same, with the scheme's number, and only those hyperparameters that differ from their default of the day they came | the same, with the scheme's number |

New work gets the newest scheme. Work that is on record under an older one (a trial of the run, an object or an evaluation of the
store) keeps that digest: it is found, verified and reused under it. A change of what digests cover is a new number and a row of this
table; the bodies of older schemes are never edited.
"""

from __future__ import annotations

from typing import Any

SCHEME = 2
"""The newest scheme: what new work gets."""
SCHEMES = (2, 1)
"""Every scheme that can be read, the newest first."""


def numbered(body: dict[str, Any], scheme: int) -> dict[str, Any]:
    """The body of a digest with its scheme's number; the first scheme had none."""
    return body if scheme == 1 else {"scheme": scheme, **body}
