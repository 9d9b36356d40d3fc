"""People's folders: where they stand, what they hold, their receipts, and the files beside them."""
