"""What the values of published label formats mean, one constant per format: source value to 0 clear, 1 cloud, 255 none.

To add a format of class codes, add one constant with its source here and name it in the layout that reads it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ClassMapping:
    """The meaning of every value that a label format uses."""

    values: tuple[tuple[int, int], ...]
    """Pairs of source value and 0 clear, 1 cloud or 255 none."""

    def as_dict(self) -> dict[int, int]:
        """Return the class by source value."""
        return dict(self.values)


BINARY: Final = ClassMapping(((0, 0), (1, 1), (255, 255)))
"""0 clear, 1 cloud, 255 no label: the canonical classes themselves."""
BINARY_255: Final = ClassMapping(((0, 0), (255, 1)))
"""38-Cloud's published masks: 0 clear, 255 cloud."""
CLOUDSEN12: Final = ClassMapping(((0, 0), (1, 1), (2, 1), (3, 0)))
"""CloudSEN12 (Aybar et al. 2022): 0 clear, 1 thick cloud, 2 thin cloud, 3 cloud shadow. A shadow is ground: clear."""
L8_BIOME: Final = ClassMapping(((0, 255), (64, 0), (128, 0), (192, 1), (255, 1)))
"""L8 Biome (Foga et al. 2017): 0 fill, 64 cloud shadow, 128 clear, 192 thin cloud, 255 cloud."""
