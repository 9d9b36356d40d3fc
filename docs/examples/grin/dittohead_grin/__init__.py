"""grin-unpack: decrypts and unpacks a volume of Google Books, as GRIN gives it."""
