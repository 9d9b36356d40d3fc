"""The words that every other package uses: states, records, events, errors, and how they are written."""
