"""What somebody meant who misspelled a name."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of the names that was most likely meant, or nothing."""
    names = list(names)
    longer = [one for one in names if name and one.startswith(name)]
    if longer:
        return longer[0]
    return next(iter(difflib.get_close_matches(name, names, 1)), "")
