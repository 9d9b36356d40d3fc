"""ocfl: store a folder as a version of an object in an OCFL storage root. Source: OCFL 1.1."""
