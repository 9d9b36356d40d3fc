"""identify: the format of every file by PRONOM, and what a policy says of it.

Source: PRONOM, www.nationalarchives.gov.uk/PRONOM; Siegfried, www.itforarchivists.com/siegfried.
"""
