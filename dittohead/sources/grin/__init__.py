"""grin: volumes that Google has scanned for a library, by GRIN, the Google Return Interface."""
