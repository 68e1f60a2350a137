"""The error of a label that says nothing yet; every other unusable label is a `BadLabel`."""

from cloudseg.errors import BadLabel


class NothingDrawn(BadLabel):
    """A polygon layer without a polygon: nobody has drawn yet. Passed over with a note, not quarantined."""
