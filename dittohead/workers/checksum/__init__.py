"""checksum: files read again and compared, with the manifest and with lists that came with the folder."""
