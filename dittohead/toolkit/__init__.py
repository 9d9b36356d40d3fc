"""What workers and sources share: HTTP, S3, images, checksums, notes of what is done outside."""
