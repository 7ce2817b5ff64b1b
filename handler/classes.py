"""The nine tissue classes of PathMNIST, in the order of the network's outputs."""

from dataclasses import dataclass
from typing import Literal

RiskGroup = Literal["high", "moderate", "low", "none"]


@dataclass(frozen=True)
class Tissue:
    """One class.

    `code` is the abbreviation of Kather et al. (doi 10.1371/journal.pmed.1002730), `name` is
    MedMNIST's label, `risk` groups the class by what finding it in a tile suggests. It is not a diagnosis.
    """

    class_id: int
    code: str
    name: str
    description: str
    risk: RiskGroup


TISSUES: tuple[Tissue, ...] = (
    Tissue(
        0,
        "ADI",
        "adipose",
        "Fat cells: large empty-looking vacuoles behind thin membranes.",
        "none",
    ),
    Tissue(1, "BACK", "background", "Glass without tissue.", "none"),
    Tissue(
        2,
        "DEB",
        "debris",
        "Necrotic or detached material without intact cells.",
        "moderate",
    ),
    Tissue(
        3,
        "LYM",
        "lymphocytes",
        "Densely packed small round dark nuclei of immune cells.",
        "low",
    ),
    Tissue(4, "MUC", "mucus", "Pale, stringy extracellular mucin.", "moderate"),
    Tissue(
        5,
        "MUS",
        "smooth muscle",
        "Parallel eosinophilic fibres with elongated nuclei.",
        "low",
    ),
    Tissue(
        6,
        "NORM",
        "normal colon mucosa",
        "Regular round crypts with goblet cells.",
        "none",
    ),
    Tissue(
        7,
        "STR",
        "cancer-associated stroma",
        "Desmoplastic connective tissue around a tumour; easily mistaken for smooth muscle.",
        "high",
    ),
    Tissue(
        8,
        "TUM",
        "colorectal adenocarcinoma epithelium",
        "Irregular, crowded malignant glands with enlarged nuclei.",
        "high",
    ),
)

DISCLAIMER = "Research software, not for clinical use: a tile's class is no diagnosis."

CODES: tuple[str, ...] = tuple(tissue.code for tissue in TISSUES)
NUM_CLASSES = len(TISSUES)
