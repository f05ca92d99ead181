"""Digest schemes: which content a digest covers, by number, so that what was recorded under an older one keeps its name.

| scheme | an action's digest covers | an evaluation's key covers |
|---|---|---|
| 1 | type, version, input digests, every hyperparameter, seed, dtype | model, rows, scorer, prompt format, tokens, dtype |
| 2 | the same, with the scheme's number, and only those hyperparameters that differ from their default of the day they came | the same, with the scheme's number |
| 3 | the same: the number tells that rows are encoded as `ASKED` says | the same, and how answers are asked for and read (`think`, `thinking`, `generation`) |

A key and the digest of an action that samples answers name the generator of answers (`GENERATORS`), unless it is the first.

A new run gets the newest scheme and keeps it to its end, so that a run of an older version goes on with the digests and the choices
that it would have made. Work that is on record under an older scheme (an object or an evaluation of the store) keeps that digest: it is
found, verified and reused under it. A change of what digests cover is a new number and a row of this table; the bodies of older
schemes are never edited.
"""

from __future__ import annotations

from typing import Any

GENERATORS = ("transformers", "vllm")
"""What answers are generated with."""
SCHEME = 3
"""The newest scheme: what new runs get."""
SCHEMES = (3, 2, 1)
"""Every scheme that can be read, the newest first."""
ASKED = 3
"""The scheme from which on a template's own marks and end-of-turn tokens are followed, answers are asked for with neutral settings, and read
without what was thought before them. Work under an older one is done as it was done then."""


def numbered(body: dict[str, Any], scheme: int) -> dict[str, Any]:
    """The body of a digest with its scheme's number; the first scheme had none."""
    return body if scheme == 1 else {"scheme": scheme, **body}
