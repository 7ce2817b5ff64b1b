"""Everything that runs inside the model archive: request to answer, with no import from outside this package."""
