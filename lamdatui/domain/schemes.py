"""Digest schemes: which content a digest covers, by number, so that what was recorded under an older one keeps its name.

| scheme | an action's digest covers | an evaluation's key covers |
|---|---|---|
| 1 | type, version, input digests, every hyperparameter, seed, dtype | model, rows, scorer, prompt format, tokens, dtype |
| 2 | the same, with the scheme's number, and only those hyperparameters that differ from their default of the day they came | the same, with the scheme's number |

A new run gets the newest scheme and keeps it to its end, so that a run of an older version goes on with the digests and the choices
that it would have made. Work that is on record under an older scheme (an object or an evaluation of the store) keeps that digest: it is
found, verified and reused under it. A change of what digests cover is a new number and a row of this table; the bodies of older
schemes are never edited.
"""

from __future__ import annotations

from typing import Any

SCHEME = 2
"""The newest scheme: what new runs get."""
SCHEMES = (2, 1)
"""Every scheme that can be read, the newest first."""


def numbered(body: dict[str, Any], scheme: int) -> dict[str, Any]:
    """The body of a digest with its scheme's number; the first scheme had none."""
    return body if scheme == 1 else {"scheme": scheme, **body}
