"""google-books: a volume that Google has scanned, held against all that its own files say of it."""
