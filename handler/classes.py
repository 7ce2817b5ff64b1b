"""The nine tissue classes of PathMNIST, in the order of the network's outputs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tissue:
    """One class.

    `code` is the abbreviation of Kather et al. (doi 10.1371/journal.pmed.1002730), `name` is MedMNIST's label.
    `colour` is for drawings of several classes: the "muted" scheme of Tol (Colour Schemes, SRON/EPS/TN/09-002, 2021),
    whose colours people with colour blindness can tell apart.
    """

    class_id: int
    code: str
    name: str
    description: str
    colour: str


TISSUES: tuple[Tissue, ...] = (
    Tissue(0, "ADI", "adipose", "Fat cells: large empty-looking vacuoles behind thin membranes.", "#DDCC77"),
    Tissue(1, "BACK", "background", "Glass without tissue.", "#DDDDDD"),
    Tissue(2, "DEB", "debris", "Necrotic or detached material without intact cells.", "#999933"),
    Tissue(3, "LYM", "lymphocytes", "Densely packed small round dark nuclei of immune cells.", "#332288"),
    Tissue(4, "MUC", "mucus", "Pale, stringy extracellular mucin.", "#88CCEE"),
    Tissue(5, "MUS", "smooth muscle", "Parallel eosinophilic fibres with elongated nuclei.", "#AA4499"),
    Tissue(6, "NORM", "normal colon mucosa", "Regular round crypts with goblet cells.", "#117733"),
    Tissue(
        7,
        "STR",
        "cancer-associated stroma",
        "Desmoplastic connective tissue around a tumour; easily mistaken for smooth muscle.",
        "#CC6677",
    ),
    Tissue(
        8,
        "TUM",
        "colorectal adenocarcinoma epithelium",
        "Irregular, crowded malignant glands with enlarged nuclei.",
        "#882255",
    ),
)

# The classes that show a tumour or the tissue it builds around itself.
TUMOUR_RELATED = ("STR", "TUM")

DISCLAIMER = "Research software, not for clinical use: a tile's class is not a diagnosis."

CODES: tuple[str, ...] = tuple(tissue.code for tissue in TISSUES)
NUM_CLASSES = len(TISSUES)
