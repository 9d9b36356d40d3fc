"""S3 and SQS: connections, buckets, objects in parts and their checks; no worker, no source."""
